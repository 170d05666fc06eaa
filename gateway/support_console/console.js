// Support's GraphiQL. The token is stored in this browser tab only; the ready-made operations are GraphiQL's
// tabs. The customer in the bar is the default of $customer, and of $search while that is empty; the month in
// the bar is the default of $month.

const $ = (id) => document.getElementById(id);
for (const kind of ["error", "unhandledrejection"]) addEventListener(kind, () => {
  if ($("graphiql").textContent === "Loading…") $("graphiql").textContent = "The console could not start: reload the page; if that does not help, see the browser's console.";
});

const { createElement, useState, useMemo, useEffect } = React;
const explorer = GraphiQLPluginExplorer.explorerPlugin();

// GraphiQL stores its tabs here: they may contain a customer's data, so not beyond this browser tab.
const storage = { getItem: (key) => sessionStorage.getItem(`graphiql:${key}`), setItem: (key, value) => sessionStorage.setItem(`graphiql:${key}`, value), removeItem: (key) => sessionStorage.removeItem(`graphiql:${key}`), clear: clearTabs, get length() { return sessionStorage.length; } };

function clearTabs() {
  for (const key of Object.keys(sessionStorage)) if (key.startsWith("graphiql:")) sessionStorage.removeItem(key);
}

// --- requests ---------------------------------------------------------------------------------------

const token = () => sessionStorage.getItem("token") ?? "";
const authorization = () => (token() ? { Authorization: `Bearer ${token()}` } : {});

function fetcher() {
  const send = GraphiQL.createFetcher({
    url: "graphql",
    enableIncrementalDelivery: false,
    fetch: (url, options) => fetch(url, { ...options, headers: { ...options.headers, ...authorization() } }),
    wsClient: graphqlWs.createClient({
      url: new URL("graphql", location.href.replace(/^http/, "ws")).href,
      connectionParams: authorization,
      lazy: true,
    }),
  });
  return async (operation, options) => {
    await customerLookup; // of a customer who was just typed in
    if (operation.query === linked?.query) $("linked").hidden = true; // it was run
    const variables = declaredOnly(operation.query, withDefaults(operation.variables));
    if (/\$customer\b/.test(operation.query) && !variables.customer) return missingCustomer();
    if (variables.month && !MONTH.test(variables.month)) return wrongMonth();
    const { documentAST = options?.documentAST, operationName } = parsed(operation);
    const answer = await send({ ...operation, operationName, variables }, { ...options, documentAST });
    const found = answer.data?.customers?.nodes;
    if (found?.length === 1 && found[0].id) {
      if (found[0].id !== $("customer").value.trim()) setMonth("");
      selectCustomer(found[0]);
    }
    if (/^mutation\b/m.test(operation.query) && variables.customer) customerLookup = lookUp(); // a hold shows at once
    if ("data" in answer) delete answer.extensions; // Support does not need the cost
    return answer;
  };
}

function withDefaults(variables) {
  const who = $("customer").value.trim();
  const month = $("month").value.trim() || new Date().toISOString().slice(0, 7);
  const withMonth = { month, ...variables };
  if (!who) return withMonth;
  return { customer: who, ...withMonth, ...(variables?.search === "" && { search: who }) };
}

function missingCustomer() {
  $("customer").focus();
  return { errors: [{ message: "Say whom it is about: put an e-mail, an organization, a name or any Stripe id into “Customer” above." }] };
}

function wrongMonth() {
  $("month").focus();
  return { errors: [{ message: "Write the month as YYYY-MM, such as 2026-10, or leave “Month” above empty for the current one." }] };
}

// Right after a change of tabs GraphiQL still passes the previous tab's document and operation name.
function parsed({ query, operationName }) {
  try {
    const documentAST = GraphiQL.GraphQL.parse(query);
    const names = documentAST.definitions.filter((node) => node.kind === "OperationDefinition").map((node) => node.name?.value);
    return { documentAST, operationName: names.length === 1 ? names[0] : operationName };
  } catch {
    return { operationName }; // the server reports the syntax error
  }
}

// Leaves out variables that the document does not declare: GraphQL rejects them.
function declaredOnly(query, variables) {
  return Object.fromEntries(Object.entries(variables).filter(([name]) => new RegExp(`\\$${name}\\b`).test(query)));
}

// --- the bar: token, customer and month -------------------------------------------------------------

function claims(jwt) {
  try {
    return JSON.parse(atob(jwt.split(".")[1].replace(/-/g, "+").replace(/_/g, "/")));
  } catch {
    return null;
  }
}

function showViewer(jwt) {
  const known = claims(jwt);
  const expired = known && known.exp * 1000 < Date.now();
  setStatus("who", jwt && (!known || expired),
    !jwt ? "Paste a token to begin"
    : !known ? "This is not a token"
    : expired ? "This token has expired"
    : `${known.sub}, ${known.role}, until ${formatTime(new Date(known.exp * 1000))}`);
}

function formatTime(end) {
  const today = end.toDateString() === new Date().toDateString();
  return end.toLocaleString("en", { ...(!today && { dateStyle: "medium" }), timeStyle: "short" });
}

function setStatus(id, bad, text) {
  $(id).className = bad ? "bad" : "";
  $(id).textContent = text;
}

const FIND = "query Who($search: String!) { customers(first: 3, search: $search) { nodes { id name organization delinquent hold { reason } syncState { status } } } }";
const MONTH = /^\d{4}-(0[1-9]|1[0-2])$/;
let customerLookup = Promise.resolve();

// Replaces the typed text by the id of the one customer that it matches; text that matches several stays.
async function lookUp() {
  const typed = $("customer").value.trim();
  sessionStorage.setItem("customer", typed);
  setStatus("whom", false, "");
  $("flags").textContent = "";
  if (!typed || !token()) return;
  const headers = { "Content-Type": "application/json", ...authorization() };
  const body = JSON.stringify({ query: FIND, variables: { search: typed } });
  const answer = await fetch("graphql", { method: "POST", headers, body }).then((response) => response.json(), () => ({}));
  if ($("customer").value.trim() !== typed) return;
  const found = answer.data?.customers.nodes ?? [];
  if (found.length === 1) selectCustomer(found[0]);
  else setStatus("whom", true, answer.errors?.[0].message ?? (found.length ? "Several match: press play on Find" : "Nobody has this. Try an e-mail, an organization or an invoice's number"));
}

// The month belongs to the customer for whom it was typed, and is cleared with the next one.
function setMonth(month) {
  $("month").value = month;
  sessionStorage.setItem("month", month);
  const wrong = month !== "" && !MONTH.test(month);
  $("month").setAttribute("aria-invalid", String(wrong));
  setStatus("month-problem", wrong, wrong ? "Write it as 2026-10" : "");
}

// What an agent must know before anything is said: the customer is on hold, has not paid, or is not synced.
function selectCustomer({ id, name, organization, hold, delinquent, syncState }) {
  $("customer").value = id;
  sessionStorage.setItem("customer", id);
  setStatus("whom", false, name ?? organization ?? "");
  const flags = [hold && `On hold: ${hold.reason}`, delinquent && "Payment failed", syncState?.status === "FAILED" && "Sync failed"];
  $("flags").textContent = flags.filter(Boolean).join(" · ");
}

// --- the page ---------------------------------------------------------------------------------------

let activeTab = null; // the tab that "Copy link" shares

function SupportConsole({ operations, linked }) {
  const [jwt, setJwt] = useState(token());
  const [resets, setResets] = useState(0);
  const send = useMemo(fetcher, [jwt]);
  const tabs = linked ? [linked, ...operations] : operations;
  // GraphiQL loads a tab's variables when the tab is selected; those of the first tab are read from here.
  if (!storage.getItem("graphiql:tabState")) {
    storage.setItem("graphiql:variables", tabs[0].variables);
    storage.setItem("graphiql:secondaryEditorFlex", "2"); // room for six variables
  }
  useEffect(() => {
    showViewer(jwt);
    $("token").value = jwt;
    $("token").onchange = () => {
      sessionStorage.setItem("token", $("token").value.trim());
      setJwt(token());
      customerLookup = lookUp();
    };
    $("reset").onclick = () => { clearTabs(); setResets(resets + 1); };
  }, [jwt, resets]);
  return createElement(GraphiQL, {
    key: `${jwt}:${resets}`, // another token may see another schema
    fetcher: send,
    ...(jwt ? {} : { schema: null }), // the schema cannot be read without a token
    storage,
    plugins: [explorer],
    defaultTabs: tabs,
    defaultEditorToolsVisibility: "variables",
    shouldPersistHeaders: false,
    isHeadersEditorEnabled: false,
    onTabChange: ({ tabs, activeTabIndex }) => { activeTab = tabs[activeTabIndex]; },
    onEditQuery: (query) => { if (linked && query !== linked.query && activeTab?.query === linked.query) $("linked").hidden = true; },
  });
}

// crypto.randomUUID and navigator.clipboard exist only on https and localhost.
const randomKey = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

function withFreshKey(variables) {
  const fresh = "idempotencyKey" in variables && { idempotencyKey: randomKey() };
  return JSON.stringify({ ...variables, ...fresh }, null, 2);
}

// A text that is no GraphQL yet is taken for a change as well.
function isChange(query) {
  try {
    return GraphiQL.GraphQL.parse(query).definitions.some((node) => node.operation === "mutation");
  } catch {
    return true;
  }
}

// A link has an operation and its variables in the fragment, which is not sent to a server, and never a token.
function fromLink() {
  const params = new URLSearchParams(location.hash.slice(1));
  if (location.search) {
    $("ignored").hidden = false;
    history.replaceState(null, "", location.pathname + location.hash);
  }
  if (params.get("customer")) $("customer").value = params.get("customer");
  if (params.get("month")) setMonth(params.get("month"));
  if (!params.get("query")) return null;
  history.replaceState(null, "", location.pathname);
  $("linked").hidden = !isChange(params.get("query"));
  return { query: params.get("query"), variables: params.get("variables") ?? "{}" };
}

$("share").onclick = async () => {
  const params = new URLSearchParams({ query: activeTab?.query ?? "", variables: activeTab?.variables ?? "{}" });
  if ($("customer").value.trim()) params.set("customer", $("customer").value.trim());
  if ($("month").value.trim()) params.set("month", $("month").value.trim());
  const link = `${location.origin}${location.pathname}#${params}`;
  if (!navigator.clipboard) { prompt("Copy this link:", link); return; }
  await navigator.clipboard.writeText(link);
  $("share").textContent = "Copied";
  setTimeout(() => { $("share").textContent = "Copy link"; }, 1500);
};

$("customer").value = sessionStorage.getItem("customer") ?? "";
$("customer").onchange = () => { setMonth(""); customerLookup = lookUp(); };
setMonth(sessionStorage.getItem("month") ?? "");
$("month").onchange = () => setMonth($("month").value.trim());

const linked = fromLink();
const operations = (await (await fetch("graphiql/operations.json")).json()).map(({ query, variables }) => ({ query, variables: withFreshKey(variables) }));
if (linked) clearTabs(); // GraphiQL prefers its stored tabs
activeTab = linked ?? operations[0];
customerLookup = lookUp();
// GraphiQL leaves its editors' text areas without a name, which a screen reader needs.
new MutationObserver(() => {
  for (const area of document.querySelectorAll("textarea:not([aria-label])")) {
    const editor = area.closest("[class^=graphiql-query-editor], .graphiql-editor-tool, .result-window");
    area.setAttribute("aria-label", editor?.matches(".result-window") ? "Answer" : editor?.matches(".graphiql-editor-tool") ? "Variables" : "Operation");
  }
}).observe($("graphiql"), { childList: true, subtree: true });
ReactDOM.createRoot($("graphiql")).render(createElement(SupportConsole, { operations, linked }));
