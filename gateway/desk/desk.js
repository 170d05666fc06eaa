// Support's GraphiQL: the token lives in this tab only, the ready-made questions are its tabs, and the
// customer in the bar stands for $customer wherever a question's variables leave it out.

const { createElement, useState, useMemo, useEffect } = React;
const $ = (id) => document.getElementById(id);
const explorer = GraphiQLPluginExplorer.explorerPlugin();

// GraphiQL keeps its tabs here: queries and variables may hold a customer's data, so not beyond the tab.
const storage = { getItem: (key) => sessionStorage.getItem(`graphiql:${key}`), setItem: (key, value) => sessionStorage.setItem(`graphiql:${key}`, value), removeItem: (key) => sessionStorage.removeItem(`graphiql:${key}`), clear: forgetTabs, get length() { return sessionStorage.length; } };

function forgetTabs() {
  for (const key of Object.keys(sessionStorage)) if (key.startsWith("graphiql:")) sessionStorage.removeItem(key);
}

// --- speaking ---------------------------------------------------------------------------------------

const token = () => sessionStorage.getItem("token") ?? "";
const withCustomer = (variables) => ({ ...($("customer").value.trim() && { customer: $("customer").value.trim() }), ...variables });

function fetcherFor(given) {
  const authorization = given && { Authorization: `Bearer ${given}` };
  const send = GraphiQL.createFetcher({
    url: "/graphql",
    fetch: (url, options) => fetch(url, { ...options, headers: { ...options.headers, ...authorization } }),
    wsClient: graphqlWs.createClient({
      url: `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/graphql`,
      connectionParams: authorization || {},
      lazy: true,
    }),
  });
  return (operation, options) => send({
    ...operation,
    operationName: named(operation),
    variables: only(operation.query, withCustomer(operation.variables)),
  }, options);
}

// Right after a change of tabs GraphiQL still names the operation of the tab before.
function named({ query, operationName }) {
  const names = [...query.matchAll(/^\s*(?:query|mutation|subscription)\s+(\w+)/gm)].map((found) => found[1]);
  return names.length === 1 ? names[0] : operationName;
}

// A variable that the document does not declare is left out: GraphQL refuses it otherwise.
function only(query, variables) {
  return Object.fromEntries(Object.entries(variables).filter(([name]) => new RegExp(`\\$${name}\\b`).test(query)));
}

function claims(given) {
  try {
    return JSON.parse(atob(given.split(".")[1].replace(/-/g, "+").replace(/_/g, "/")));
  } catch {
    return null;
  }
}

function showWho(given) {
  const who = $("who");
  const known = claims(given);
  const expired = known && known.exp * 1000 < Date.now();
  who.className = given && (!known || expired) ? "bad" : "";
  who.textContent = !given ? "Paste a token to begin"
    : !known ? "This is not a token"
    : expired ? "This token has expired"
    : `${known.sub}, ${known.role}, until ${new Date(known.exp * 1000).toLocaleString("en", { dateStyle: "medium", timeStyle: "short" })}`;
}

// --- the page ---------------------------------------------------------------------------------------

let shown = null; // the tab that is in front: what "Copy link" shares

function Desk({ questions, linked }) {
  const [given, setGiven] = useState(token());
  const [round, setRound] = useState(0);
  const fetcher = useMemo(() => fetcherFor(given), [given]);
  useEffect(() => {
    showWho(given);
    $("token").value = given;
    $("token").onchange = () => {
      sessionStorage.setItem("token", $("token").value.trim());
      setGiven(token());
    };
    $("reset").onclick = () => { forgetTabs(); setRound(round + 1); };
  }, [given, round]);
  return createElement(GraphiQL, {
    key: `${given}:${round}`, // another token may see another schema
    fetcher,
    ...(given ? {} : { schema: null }), // nobody may look at the schema without a token
    storage,
    plugins: [explorer],
    defaultTabs: linked ? [linked, ...questions] : questions,
    defaultEditorToolsVisibility: "variables",
    shouldPersistHeaders: false,
    isHeadersEditorEnabled: false,
    onTabChange: ({ tabs, activeTabIndex }) => { shown = tabs[activeTabIndex]; },
  });
}

function skeleton(variables) {
  const filled = Object.fromEntries(Object.entries(variables).map(([name, value]) => [name, name === "idempotencyKey" ? crypto.randomUUID() : value]));
  return JSON.stringify(filled, null, 2);
}

// A link carries an operation and its variables behind the #, which no server sees, and never a token.
function fromLink() {
  const said = new URLSearchParams(location.hash.slice(1) || location.search);
  if (said.get("customer")) $("customer").value = said.get("customer");
  if (!said.get("query")) return null;
  history.replaceState(null, "", location.pathname);
  return { query: said.get("query"), variables: said.get("variables") ?? "{}" };
}

$("share").onclick = async () => {
  const said = new URLSearchParams({ query: shown?.query ?? "", variables: shown?.variables ?? "{}" });
  if ($("customer").value.trim()) said.set("customer", $("customer").value.trim());
  await navigator.clipboard.writeText(`${location.origin}${location.pathname}#${said}`);
  $("share").textContent = "Copied";
  setTimeout(() => { $("share").textContent = "Copy link"; }, 1500);
};

$("customer").value = sessionStorage.getItem("customer") ?? "";
$("customer").onchange = () => sessionStorage.setItem("customer", $("customer").value.trim());

const linked = fromLink();
const questions = (await (await fetch("/graphiql/operations.json")).json()).map(({ query, variables }) => ({ query, variables: skeleton(variables) }));
if (linked) forgetTabs(); // GraphiQL looks at its own tabs first
shown = linked ?? questions[0];
ReactDOM.createRoot($("graphiql")).render(createElement(Desk, { questions, linked }));
