// Support's GraphiQL: the token lives in this tab only, the ready-made questions are its tabs, and whoever
// stands in the bar is $customer, and $search while that is empty; the month there is $month.

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
const authorization = () => (token() ? { Authorization: `Bearer ${token()}` } : {});

function fetcher() {
  const send = GraphiQL.createFetcher({
    url: "/graphql",
    enableIncrementalDelivery: false,
    fetch: (url, options) => fetch(url, { ...options, headers: { ...options.headers, ...authorization() } }),
    wsClient: graphqlWs.createClient({
      url: `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/graphql`,
      connectionParams: authorization,
      lazy: true,
    }),
  });
  return async (operation, options) => {
    await meant; // a customer who was just typed in is being looked up
    const variables = only(operation.query, withBar(operation.variables));
    if (/\$customer\b/.test(operation.query) && !variables.customer) return nobody();
    const { documentAST = options?.documentAST, operationName } = asWritten(operation);
    const answer = await send({ ...operation, operationName, variables }, { ...options, documentAST });
    const found = answer.data?.customers?.nodes;
    if (found?.length === 1 && found[0].id) {
      if (found[0].id !== $("customer").value.trim()) about("");
      settle(found[0]);
    }
    if ("data" in answer) delete answer.extensions; // what the answer cost is nothing to Support
    return answer;
  };
}

function withBar(variables) {
  const who = $("customer").value.trim();
  const month = $("month").value.trim() || new Date().toISOString().slice(0, 7);
  const given = { month, ...variables };
  if (!who) return given;
  return { customer: who, ...given, ...(variables?.search === "" && { search: who }) };
}

function nobody() {
  $("customer").focus();
  return { errors: [{ message: "Say whom it is about: put an e-mail, an organization, a name or any Stripe id into “Customer” above." }] };
}

// Right after a change of tabs GraphiQL still brings the document of the tab before, and its operation's name.
function asWritten({ query, operationName }) {
  try {
    const documentAST = GraphiQL.GraphQL.parse(query);
    const names = documentAST.definitions.filter((each) => each.kind === "OperationDefinition").map((each) => each.name?.value);
    return { documentAST, operationName: names.length === 1 ? names[0] : operationName };
  } catch {
    return { operationName }; // the answer says what is wrong with it
  }
}

// A variable that the document does not declare is left out: GraphQL refuses it otherwise.
function only(query, variables) {
  return Object.fromEntries(Object.entries(variables).filter(([name]) => new RegExp(`\\$${name}\\b`).test(query)));
}

// --- the bar: who asks, and about whom --------------------------------------------------------------

function claims(given) {
  try {
    return JSON.parse(atob(given.split(".")[1].replace(/-/g, "+").replace(/_/g, "/")));
  } catch {
    return null;
  }
}

function showWho(given) {
  const known = claims(given);
  const expired = known && known.exp * 1000 < Date.now();
  say("who", given && (!known || expired),
    !given ? "Paste a token to begin"
    : !known ? "This is not a token"
    : expired ? "This token has expired"
    : `${known.sub}, ${known.role}, until ${until(new Date(known.exp * 1000))}`);
}

function until(end) {
  const today = end.toDateString() === new Date().toDateString();
  return end.toLocaleString("en", { ...(!today && { dateStyle: "medium" }), timeStyle: "short" });
}

function say(where, bad, text) {
  $(where).className = bad ? "bad" : "";
  $(where).textContent = text;
}

const FIND = "query Who($search: String!) { customers(first: 3, search: $search) { nodes { id name organization } } }";
let meant = Promise.resolve();

// Whatever was typed becomes the id of the one customer it means; what means several stays as it is.
async function lookUp() {
  const typed = $("customer").value.trim();
  sessionStorage.setItem("customer", typed);
  say("whom", false, "");
  if (!typed || !token()) return;
  const headers = { "Content-Type": "application/json", ...authorization() };
  const body = JSON.stringify({ query: FIND, variables: { search: typed } });
  const answer = await fetch("/graphql", { method: "POST", headers, body }).then((each) => each.json(), () => ({}));
  if ($("customer").value.trim() !== typed) return;
  const found = answer.data?.customers.nodes ?? [];
  if (found.length === 1) settle(found[0]);
  else say("whom", true, answer.errors?.[0].message ?? (found.length ? "Several match: press play on Find" : "Nobody found"));
}

// A month is remembered with the customer it was typed for: it would surprise with the next one.
function about(month) {
  $("month").value = month;
  sessionStorage.setItem("month", month);
}

function settle({ id, name, organization }) {
  $("customer").value = id;
  sessionStorage.setItem("customer", id);
  say("whom", false, name ?? organization ?? "");
}

// --- the page ---------------------------------------------------------------------------------------

let shown = null; // the tab that is in front: what "Copy link" shares

function Desk({ questions, linked }) {
  const [given, setGiven] = useState(token());
  const [round, setRound] = useState(0);
  const speak = useMemo(fetcher, [given]);
  const tabs = linked ? [linked, ...questions] : questions;
  // GraphiQL shows the variables of a tab only when it is changed to, and for the first one these.
  if (!storage.getItem("graphiql:tabState")) {
    storage.setItem("graphiql:variables", tabs[0].variables);
    storage.setItem("graphiql:secondaryEditorFlex", "2"); // room for six variables
  }
  useEffect(() => {
    showWho(given);
    $("token").value = given;
    $("token").onchange = () => {
      sessionStorage.setItem("token", $("token").value.trim());
      setGiven(token());
      meant = lookUp();
    };
    $("reset").onclick = () => { forgetTabs(); setRound(round + 1); };
  }, [given, round]);
  return createElement(GraphiQL, {
    key: `${given}:${round}`, // another token may see another schema
    fetcher: speak,
    ...(given ? {} : { schema: null }), // nobody may look at the schema without a token
    storage,
    plugins: [explorer],
    defaultTabs: tabs,
    defaultEditorToolsVisibility: "variables",
    shouldPersistHeaders: false,
    isHeadersEditorEnabled: false,
    onTabChange: ({ tabs, activeTabIndex }) => { shown = tabs[activeTabIndex]; },
  });
}

function filled(variables) {
  const fresh = "idempotencyKey" in variables && { idempotencyKey: crypto.randomUUID() };
  return JSON.stringify({ ...variables, ...fresh }, null, 2);
}

// A link carries an operation and its variables behind the #, which no server sees, and never a token.
function fromLink() {
  const said = new URLSearchParams(location.hash.slice(1) || location.search);
  if (said.get("customer")) $("customer").value = said.get("customer");
  if (said.get("month")) about(said.get("month"));
  if (!said.get("query")) return null;
  history.replaceState(null, "", location.pathname);
  return { query: said.get("query"), variables: said.get("variables") ?? "{}" };
}

$("share").onclick = async () => {
  const said = new URLSearchParams({ query: shown?.query ?? "", variables: shown?.variables ?? "{}" });
  if ($("customer").value.trim()) said.set("customer", $("customer").value.trim());
  if ($("month").value.trim()) said.set("month", $("month").value.trim());
  await navigator.clipboard.writeText(`${location.origin}${location.pathname}#${said}`);
  $("share").textContent = "Copied";
  setTimeout(() => { $("share").textContent = "Copy link"; }, 1500);
};

$("customer").value = sessionStorage.getItem("customer") ?? "";
$("customer").onchange = () => { about(""); meant = lookUp(); };
$("month").value = sessionStorage.getItem("month") ?? "";
$("month").onchange = () => about($("month").value.trim());

const linked = fromLink();
const questions = (await (await fetch("/graphiql/operations.json")).json()).map(({ query, variables }) => ({ query, variables: filled(variables) }));
if (linked) forgetTabs(); // GraphiQL looks at its own tabs first
shown = linked ?? questions[0];
meant = lookUp();
ReactDOM.createRoot($("graphiql")).render(createElement(Desk, { questions, linked }));
