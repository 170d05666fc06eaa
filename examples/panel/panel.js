// The worked example for front-end engineers: the gateway's GraphQL API from a browser, without libraries.
// One query fetches the page's data; one subscription over SSE signals when to fetch it again.

const DIMENSIONS = { APP: "App", REGION: "Region", ORGANIZATION: "Organization", SKU: "Item" };
const ROWS = 8;

const PANEL = `query Panel($id: ID!, $by: UsageDimension!) @experimental_disableErrorPropagation {
  customer(id: $id) {
    name organization email delinquent
    creditBalance { amount formatted }
    defaultPaymentMethod { brand last4 }
    freshness { source fetchedAt }
    currentPeriod {
      start end state asOf
      total { amount formatted } inStripe { amount formatted }
      claimed { amount formatted } pending { amount formatted }
      usage(by: $by) { key description quantity unit amount { amount formatted } }
    }
    syncState { status lastSyncedAt pendingDeltas nextSyncAt lastSync { id status stripeCalls linesAdded linesUpdated linesRemoved failure { message } } }
    invoices(first: 12) {
      nodes {
        id number status periodStart periodEnd total { formatted } amountDue { formatted }
        hostedInvoiceUrl invoicePdf freshness { source fetchedAt }
      }
    }
    spendHistory(months: 6) { month total { amount formatted } }
  }
}`;
const VIEWER = `{ viewer { role customers(first: 100) { nodes { id name organization } pageInfo { hasNextPage } } } }`;
const CHANGES = `subscription Changes($id: ID!) { billingChanged(customerId: $id) { reason at sync { id status stripeCalls linesAdded linesUpdated linesRemoved failure { message } } } }`;
const SYNC = `mutation Sync($id: ID!) { syncBilling(input: {customerId: $id}) { coalesced sync { id status } errors { message } } }`;
const PORTAL = `mutation Portal($id: ID!, $back: String!) { createPortalSession(input: {customerId: $id, returnUrl: $back}) { url errors { message } } }`;

const $ = (id) => document.getElementById(id);
const state = { token: null, customer: null, by: "APP", all: false, follow: null, requested: 0, completed: 0, sync: null, announcedAt: 0, retryTimer: 0 };
const rendered = {}; // section -> its rendered data as JSON: an unchanged section is not re-rendered and keeps the focus

// --- GraphQL requests -------------------------------------------------------------------------------

async function execute(query, variables = {}) {
  const response = await fetch("/graphql", {
    method: "POST",
    headers: {
      "Content-Type": "application/json",
      Accept: "application/graphql-response+json, application/json",
      Authorization: `Bearer ${state.token}`,
    },
    body: JSON.stringify({ query, variables }),
  });
  const body = await response.json();
  if (!body.data) throw new ApiError(body.errors?.[0], response.status);
  return body;
}

class ApiError extends Error {
  constructor(error, status) {
    super(error?.message ?? `HTTP ${status}`);
    this.status = status;
    this.code = error?.extensions?.code;
  }
}

// True if a retry may help: the gateway was not reached, or a server behind it is unavailable.
const isTransient = (error) => !(error instanceof ApiError) || error.status >= 500
  || ["STRIPE_UNAVAILABLE", "OVERLOADED", "RATE_LIMITED", "TIMEOUT"].includes(error.code);
const errorMessage = (error) => error instanceof ApiError ? error.message : "The billing gateway does not answer.";

// graphql-sse, distinct connections mode: the subscription is one POST whose response is a stream.
async function* changes(customer, signal) {
  const response = await fetch("/graphql", {
    method: "POST",
    signal,
    headers: { "Content-Type": "application/json", Accept: "text/event-stream", Authorization: `Bearer ${state.token}` },
    body: JSON.stringify({ query: CHANGES, variables: { id: customer } }),
  });
  if (!response.ok) throw new ApiError(null, response.status);
  const text = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let buffer = ""; ; ) {
    const { value, done } = await text.read();
    if (done) return;
    buffer += value;
    for (let end; (end = buffer.indexOf("\n\n")) >= 0; buffer = buffer.slice(end + 2)) {
      const event = Object.fromEntries(buffer.slice(0, end).split("\n").map((line) => {
        const colon = line.indexOf(":");
        return [line.slice(0, colon), line.slice(colon + 1).trim()];
      }));
      if (event.event === "complete") return;
      if (event.event === "next") yield JSON.parse(event.data).data?.billingChanged;
    }
  }
}

// Follow a customer while the page shows it; after a broken connection, fetch again and reconnect.
async function follow(customer) {
  state.follow?.abort();
  const control = (state.follow = new AbortController());
  for (let pause = 500; !control.signal.aborted; pause = Math.min(pause * 2, 15000)) {
    try {
      for await (const change of changes(customer, control.signal)) {
        pause = 500;
        if (change?.sync) drawProgress(change.sync);
        refresh();
      }
    } catch (error) {
      if (control.signal.aborted) return;
      if (error.status === 401) return signOut("The token has expired; paste a new one.");
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
    if (!control.signal.aborted) refresh();
  }
}

// At most one query at a time; changes that arrive meanwhile cause one more.
async function refresh() {
  state.requested += 1;
  if (state.requested - state.completed > 1) return;
  while (state.completed < state.requested) {
    const request = state.requested;
    const { customer: id, by } = state;
    try {
      const body = await execute(PANEL, { id, by });
      if (id === state.customer && by === state.by) draw(body);
    } catch (error) {
      if (error.status === 401) return signOut("The token has expired; paste a new one.");
      notice(`${errorMessage(error)} What you see is the last that was known.`);
      clearTimeout(state.retryTimer);
      state.retryTimer = setTimeout(refresh, 5000);
    }
    state.completed = request;
  }
}

// --- rendering --------------------------------------------------------------------------------------

function draw({ data, errors, extensions }) {
  const { customer } = data;
  const stale = customer?.freshness.source === "STALE";
  clearTimeout(state.retryTimer);
  if (stale || errors) state.retryTimer = setTimeout(refresh, 5000);
  if (!customer && errors) return notice(`${errors[0].message} This page asks again by itself.`);
  if (!customer) return signOut("There is no such customer for this token.");
  $("name").textContent = customer.name ?? customer.organization ?? state.customer;
  document.title = `Billing · ${$("name").textContent}`;
  $("panel").hidden = $("portal").hidden = $("leave").hidden = false;
  notice(
    stale ? `Stripe does not answer right now. Usage is live; what Stripe knows is as of ${clock(customer.freshness.fetchedAt)}.`
    : errors ? `Part of this page is missing: ${errors[0].message}`
    : customer.delinquent ? "A payment has failed. Please check your payment method." : "",
  );
  drawAbout(customer);
  drawNow(customer.currentPeriod);
  drawSync(customer.syncState);
  drawUsage(customer.currentPeriod);
  if (customer.spendHistory) drawMonths(customer.spendHistory);
  if (customer.invoices) drawInvoices(customer.invoices.nodes);
  const cost = extensions?.billing;
  $("cost").textContent = cost ? `This view: ${count(cost.stripeCalls, "Stripe call")}, ${cost.cacheHits} from the cache` : "";
}

function drawAbout({ organization, email, creditBalance, defaultPaymentMethod: card }) {
  const credit = Number(creditBalance?.amount) > 0 && `${creditBalance.formatted} credit`;
  const pays = card && `Pays with ${card.brand ?? "a saved method"}${card.last4 ? ` ending in ${card.last4}` : ""}`;
  $("about").textContent = [organization, email, pays, credit].filter(Boolean).join(" · ");
}

function drawNow(period) {
  if (!period) return;
  const total = $("total");
  if (total.textContent && total.textContent !== period.total.formatted) {
    total.classList.remove("changed");
    void total.offsetWidth; // restarts the animation
    total.classList.add("changed");
  }
  total.textContent = period.total.formatted;
  if (Date.now() - state.announcedAt > 20_000) { // a screen reader should not announce every second
    state.announcedAt = Date.now();
    $("spoken").textContent = `Month to date: ${period.total.formatted}`;
  }
  const month = new Date(period.start).toLocaleDateString("en", { month: "long", year: "numeric", timeZone: "UTC" });
  const held = period.state === "HELD" ? " · on hold" : period.state === "CLOSING" ? " · closing" : "";
  $("dates").textContent = `${month}, closes ${day(period.end)}${held}`;
  const parts = [
    ["in-stripe", "In Stripe's draft invoice", period.inStripe, "--accent"],
    ["claimed", "On its way to Stripe", period.claimed, "--way"],
    ["pending", "Not sent yet", period.pending, "--wait"],
  ];
  const lengths = parts.map(([, , money]) => Math.max(0, Number(money.amount))); // lengths on the screen, not amounts
  const all = lengths.reduce((sum, length) => sum + length, 0) || 1; // shares: flex items that grow by less than 1 in total do not fill the bar
  $("split").replaceChildren(...parts.map(([name], at) => {
    const part = make("i", "", name);
    part.style.flexGrow = String(lengths[at] / all);
    return part;
  }));
  $("split").setAttribute("aria-label", parts.map(([, label, money]) => `${label}: ${money.formatted}`).join("; "));
  $("parts").replaceChildren(...parts.map(([, label, money, dot]) => {
    const row = make("div");
    row.style.setProperty("--dot", `var(${dot})`);
    row.append(make("dt", label), make("dd", money.formatted));
    return row;
  }));
  $("as-of").textContent = `Live, as of ${clock(period.asOf)}`;
}

const SYNC_WORDS = {
  UP_TO_DATE: "Up to date", PENDING: "Waiting for the next sync", QUEUED: "Sync requested", RUNNING: "Syncing…",
  RETRYING: "Stripe is slow; retrying", FAILED: "Needs attention", HELD: "On hold by Support",
};

function drawSync(sync) {
  if (!sync) return;
  // The event with our sync's end may have been coalesced into a newer one.
  if (state.sync && sync.lastSync?.id === state.sync) drawProgress(sync.lastSync);
  $("sync-state").textContent = SYNC_WORDS[sync.status] ?? sync.status;
  $("sync-state").dataset.status = sync.status;
  const waiting = sync.pendingDeltas ? `${count(sync.pendingDeltas, "usage record")} waiting` : "Nothing waiting";
  const next = sync.nextSyncAt && sync.pendingDeltas ? `, next sync ${clock(sync.nextSyncAt)}` : "";
  const last = sync.lastSyncedAt ? ` · last told ${clock(sync.lastSyncedAt)}` : "";
  $("sync-more").textContent = sync.lastSync?.failure?.message ?? waiting + next + last;
}

const STEP = { QUEUED: 0, RUNNING: 1, RETRYING: 1, SUCCEEDED: 3, FAILED: 2 };

function drawSteps(status) {
  $("steps").hidden = false;
  [...$("steps").children].forEach((step, at) => {
    step.className = at < STEP[status] ? "past" : at === 2 && status === "FAILED" ? "failed" : "";
    step.toggleAttribute("aria-current", at === STEP[status] && status !== "FAILED");
    if (step.hasAttribute("aria-current")) step.setAttribute("aria-current", "step");
  });
  $("steps").lastElementChild.textContent = status === "FAILED" ? "Failed" : "Done";
}

function drawProgress(sync) {
  if (state.sync && sync.id !== state.sync) return;
  const lines = sync.linesAdded + sync.linesUpdated + sync.linesRemoved;
  const words = {
    QUEUED: "Waiting for a worker…", RUNNING: "Telling Stripe…",
    RETRYING: "Stripe asked us to wait; trying again…",
    SUCCEEDED: `Done: ${count(lines, "line")} in ${count(sync.stripeCalls, "Stripe call")}.`,
    FAILED: sync.failure?.message ?? "It failed; Support can see why.",
  };
  $("sync-progress").textContent = words[sync.status] ?? "";
  drawSteps(sync.status);
  $("sync").disabled = ["QUEUED", "RUNNING"].includes(sync.status);
}

function drawUsage(period) {
  if (!period) return;
  for (const button of $("by").children) button.setAttribute("aria-pressed", String(button.value === state.by));
  if (!changed("usage", [state.by, state.all, period.usage])) return;
  const rows = [...period.usage].sort((a, b) => Number(b.amount.amount) - Number(a.amount.amount));
  const largest = Math.max(...rows.map((row) => Math.abs(Number(row.amount.amount))), 0) || 1;
  $("bars-caption").textContent = `Month to date by ${DIMENSIONS[state.by].toLowerCase()}`;
  $("bars").replaceChildren(...rows.slice(0, state.all ? undefined : ROWS).map((row) => usageRow(row, largest)));
  if (!rows.length) $("bars").replaceChildren(lone("No usage yet this month."));
  $("more").hidden = rows.length <= ROWS;
  $("more").textContent = state.all ? "Show fewer" : `Show all ${rows.length}`;
  $("more").setAttribute("aria-expanded", String(state.all));
}

function usageRow(row, largest) {
  const name = (state.by === "SKU" && row.description) || row.key || `No ${DIMENSIONS[state.by].toLowerCase()} named`;
  const bar = make("i", "", Number(row.amount.amount) < 0 ? "credit" : "");
  bar.style.width = `${(100 * Math.abs(Number(row.amount.amount))) / largest}%`;
  const [label, barCell, amount] = [make("th", name, "label"), make("td", "", "bar"), make("td", rounded(row.amount), "number")];
  label.scope = "row";
  label.title = [name, row.key, `${row.quantity} ${row.unit ?? ""}`].join(" · ");
  amount.title = row.amount.formatted;
  barCell.append(bar);
  const line = make("tr");
  line.append(label, barCell, amount);
  return asRow(line);
}

function drawMonths(months) {
  if (!changed("months", months)) return;
  const largest = Math.max(...months.map((entry) => Number(entry.total.amount)), 0) || 1;
  $("months").replaceChildren(...[...months].reverse().map((entry) => {
    const column = make("li");
    const bar = make("i");
    bar.style.height = `${(6 * Math.max(0, Number(entry.total.amount))) / largest}rem`;
    column.append(make("span", entry.total.formatted.replace(/^[A-Z]+ /, "")), bar, make("span", month(entry.month)));
    return column;
  }));
  if (!months.length) $("months").replaceChildren(make("li", "The first bill comes when this month has ended.", "none"));
}

function drawInvoices(invoices) {
  const oldest = invoices.map((invoice) => invoice.freshness).sort((a, b) => a.fetchedAt.localeCompare(b.fetchedAt))[0];
  $("bills-fresh").textContent = oldest ? `${{ STRIPE: "From Stripe", CACHE: "From the cache, verified", STALE: "Last known" }[oldest.source]}, read ${clock(oldest.fetchedAt)}` : "";
  if (!changed("bills", invoices.map(({ freshness, ...rest }) => rest))) return;
  $("bills").replaceChildren(...invoices.map((invoice) => {
    const row = make("tr");
    const links = make("td", "", "links");
    const label = invoice.number ?? "the draft";
    const owed = invoice.status === "OPEN";
    if (invoice.hostedInvoiceUrl) links.append(link(invoice.hostedInvoiceUrl, owed ? "Pay" : "View", label, owed ? "pay" : ""));
    if (invoice.invoicePdf) links.append(" ", link(invoice.invoicePdf, "PDF", label));
    const status = make("td", "", "status");
    status.append(make("span", invoice.status.toLowerCase(), `pill ${invoice.status}`));
    const period = invoice.periodStart ? new Date(invoice.periodStart).toLocaleDateString("en", { month: "short", year: "numeric", timeZone: "UTC" }) : "";
    row.append(make("td", invoice.number ?? "Draft"), make("td", period, "period"), status, make("td", invoice.total.formatted, "number"), links);
    return asRow(row);
  }));
  if (!invoices.length) $("bills").replaceChildren(lone("No invoices yet."));
}

function notice(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

const make = (tag, text = "", name = "") => Object.assign(document.createElement(tag), { textContent: text, className: name });
// Rounded for display: an exact amount may have twelve decimals; the tooltip shows it.
const rounded = (money) => {
  const [currency] = money.formatted.split(" ");
  const number = Number(money.amount);
  const digits = new Intl.NumberFormat("en", { style: "currency", currency }).resolvedOptions().maximumFractionDigits;
  const least = 10 ** -digits; // a cent, a yen, a fils
  if (number && Math.abs(number) < least) return `${number < 0 ? "> −" : "< "}${currency} ${least.toFixed(digits)}`;
  return `${currency} ${number.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits })}`;
};
const count = (number, what) => `${number.toLocaleString("en")} ${what}${number === 1 ? "" : "s"}`;
// On narrow screens rows have display: grid, which removes their table roles.
const asRow = (row) => {
  row.role = "row";
  for (const cell of row.cells) cell.role = cell.tagName === "TH" ? "rowheader" : "cell";
  return row;
};
const lone = (text) => {
  const row = make("tr");
  row.append(Object.assign(make("td", text, "muted"), { colSpan: 5 }));
  return asRow(row);
};
const link = (href, text, of, name) => Object.assign(make("a", text, name), { href, target: "_blank", rel: "noopener noreferrer", ariaLabel: `${text} ${of}` });
const changed = (section, value) => {
  const [before, now] = [rendered[section], JSON.stringify(value)];
  rendered[section] = now;
  return before !== now;
};
const month = (text) => new Date(`${text}-01T00:00Z`).toLocaleDateString("en", { month: "short", timeZone: "UTC" });
const clock = (moment) => {
  const [at, now] = [new Date(moment), new Date()];
  const time = at.toLocaleTimeString("en", { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
  return at.toDateString() === now.toDateString() ? time : `${at.toLocaleDateString("en", { day: "numeric", month: "short" })}, ${time}`;
};
const day = (moment) => new Date(moment).toLocaleDateString("en", { day: "numeric", month: "long", timeZone: "UTC" });

// --- sign in and sign out ---------------------------------------------------------------------------

async function signIn(token) {
  // Characters that no HTTP header may contain: spaces, or the "…" of a token that was cut short on a screen.
  if (!/^[\x21-\x7e]+$/.test(token)) throw new ApiError({ message: "That is not a whole token; copy all of it." }, 401);
  state.token = token;
  const { viewer } = (await execute(VIEWER)).data;
  const customers = viewer.customers.nodes;
  if (!customers.length) throw new ApiError({ message: "This token names no customer; a customer's or Support's token does." }, 403);
  sessionStorage.setItem("token", token);
  $("enter").hidden = true;
  $("pick").replaceChildren(...customers.map((customer) => new Option(customer.name ?? customer.organization ?? customer.id, customer.id)));
  if (viewer.customers.pageInfo.hasNextPage) {
    $("pick").append(Object.assign(new Option(`Only the newest ${customers.length} are listed`), { disabled: true }));
  }
  $("pick-label").hidden = customers.length < 2;
  selectCustomer(customers[0].id);
}

function selectCustomer(customer) {
  state.customer = customer;
  refresh();
  follow(customer);
}

function signOut(reason = "") {
  state.follow?.abort();
  clearTimeout(state.retryTimer);
  state.token = state.customer = null; // a response that arrives later is not rendered
  sessionStorage.removeItem("token");
  $("panel").hidden = $("portal").hidden = $("leave").hidden = $("pick-label").hidden = true;
  $("name").textContent = "Welcome";
  document.title = "Billing";
  $("about").textContent = $("cost").textContent = ""; // no data of the previous customer stays on the screen
  $("enter").hidden = false;
  $("enter-problem").textContent = reason;
  notice("");
}

// Prompts for another token when this one is rejected; retries it while the gateway is unavailable.
async function signInWithRetry(token, pause = 1000) {
  try {
    await signIn(token);
    notice("");
  } catch (error) {
    if (!isTransient(error)) return signOut(error.message);
    $("name").textContent = "One moment";
    notice(`${errorMessage(error)} This page asks again by itself.`);
    setTimeout(() => signInWithRetry(token, Math.min(pause * 2, 15000)), pause);
  }
}

for (const [by, label] of Object.entries(DIMENSIONS)) {
  const button = Object.assign(make("button", label), { type: "button", value: by });
  button.addEventListener("click", () => { state.by = by; state.all = false; refresh(); });
  $("by").append(button);
}
$("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  signInWithRetry($("token").value.trim().replace(/^Bearer\s+/i, ""));
});
$("leave").addEventListener("click", () => signOut());
$("pick").addEventListener("change", () => selectCustomer($("pick").value));
$("more").addEventListener("click", () => { state.all = !state.all; refresh(); });
$("sync").addEventListener("click", async () => {
  $("sync").disabled = true;
  try {
    const { sync, errors } = (await execute(SYNC, { id: state.customer })).data.syncBilling;
    state.sync = sync?.id ?? null;
    $("sync-progress").textContent = errors[0]?.message ?? "Waiting for a worker…";
    if (!sync) $("sync").disabled = false;
  } catch (error) {
    $("sync-progress").textContent = error.message;
    $("sync").disabled = false;
  }
});
$("portal").addEventListener("click", async () => {
  $("portal").disabled = true;
  try {
    const { url, errors } = (await execute(PORTAL, { id: state.customer, back: location.href })).data.createPortalSession;
    if (url) location.assign(url);
    else notice(errors[0].message);
  } catch (error) {
    notice(error.message);
  }
  $("portal").disabled = false;
});

// A link may have the token in its fragment (`/#token=…`), which is not sent to a server. It is removed from the
// address bar at once.
const linkedToken = new URLSearchParams(location.hash.slice(1)).get("token");
if (linkedToken) history.replaceState(null, "", location.pathname);
const initialToken = linkedToken ?? sessionStorage.getItem("token");
if (initialToken) signInWithRetry(initialToken);
else signOut();
