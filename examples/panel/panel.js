// The worked example for front-end engineers: the gateway's GraphQL API from a browser, without libraries.
// One query fetches the page's data; one subscription over SSE signals when to fetch it again.

const DIMENSIONS = { APP: "App", REGION: "Region", ORGANIZATION: "Organization", SKU: "Item" };
const ROWS = 8;
const SHOWN_MONTHS = 6;

const PANEL = `query Panel($id: ID!, $by: UsageDimension!, $month: String, $after: String) @experimental_disableErrorPropagation {
  now: period(customerId: $id) { ...Now }
  shown: period(customerId: $id, month: $month) {
    start total { rounded }
    usage(by: $by) {
      key description quantity unit
      amount { amount rounded formatted } unitPrice { formatted } corrections { amount rounded }
    }
  }
  customer(id: $id) {
    name organization email delinquent
    creditBalance { amount rounded }
    defaultPaymentMethod { brand last4 }
    freshness { source fetchedAt }
    currentPeriod { ...Now estimate { estimated amountDue { rounded } rows { kind amount { amount rounded } } } }
    syncState { status lastSyncedAt pendingDeltas nextSyncAt lastSync { id status stripeCalls linesAdded linesUpdated linesRemoved failure { message } } }
    invoices(first: 12, after: $after) {
      nodes {
        id number status periodStart periodEnd dueAt isOverdue total { rounded } amountRemaining { rounded }
        paymentFailure { message } nextPaymentAttemptAt
        hostedInvoiceUrl invoicePdf freshness { source fetchedAt }
      }
      pageInfo { hasNextPage endCursor }
    }
    spendHistory(months: 12) { month total { amount rounded } }
  }
}
fragment Now on BillingPeriod {
  start end state asOf
  total { amount rounded } inStripe { amount rounded } claimed { amount rounded } pending { amount rounded }
}`;
const VIEWER = `query Viewer @experimental_disableErrorPropagation { viewer { role customerIds customers(first: 100) { nodes { id name organization } pageInfo { hasNextPage } } } }`;
const CHANGES = `subscription Changes($id: ID!) { billingChanged(customerId: $id) { reason at sync { id status stripeCalls linesAdded linesUpdated linesRemoved failure { message } } } }`;
const SYNC = `mutation Sync($id: ID!) { syncBilling(input: {customerId: $id}) { coalesced sync { id status } errors { code message } } }`;
const PORTAL = `mutation Portal($id: ID!, $back: String!) { createPortalSession(input: {customerId: $id, returnUrl: $back}) { url errors { code message } } }`;

const $ = (id) => document.getElementById(id);
const state = { token: null, customer: null, by: "APP", month: null, all: false, older: [], follow: null, requested: 0, completed: 0, sync: null, announcedAt: 0, retryTimer: 0 };
const rendered = {}; // section -> its rendered data as JSON: an unchanged section is not re-rendered and keeps the focus

// --- GraphQL requests -------------------------------------------------------------------------------

async function execute(query, variables = {}) {
  const response = await fetch("graphql", {
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
  || ["STRIPE_UNAVAILABLE", "LEDGER_UNAVAILABLE", "OVERLOADED", "RATE_LIMITED", "TIMEOUT"].includes(error.code);
// For people: a code whose message is meant for engineers gets other words. docs/panel.md lists every code.
const WORDS = {
  STRIPE_UNAVAILABLE: "Stripe, which keeps invoices and payments, does not answer just now. Nothing was charged.",
  LEDGER_UNAVAILABLE: "Usage cannot be read just now. Nothing is lost.",
  ON_HOLD: "Support has paused your billing. Usage is still counted.",
};
const words = ({ message, extensions, code }) => WORDS[code ?? extensions?.code] ?? message;
const errorMessage = (error) => error instanceof ApiError ? words(error) : "The billing gateway does not answer.";

// graphql-sse, distinct connections mode: the subscription is one POST whose response is a stream.
async function* changes(customer, signal) {
  const response = await fetch("graphql", {
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
    const { customer: id, by, month } = state;
    try {
      const body = await execute(PANEL, { id, by, month });
      if (id === state.customer && by === state.by && month === state.month) draw(body);
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
  const period = customer?.currentPeriod ?? data.now;
  const stale = customer?.freshness?.source === "STALE";
  clearTimeout(state.retryTimer);
  if (stale || errors) state.retryTimer = setTimeout(refresh, 5000);
  if (!period && errors) return notice(`${words(errors[0])} This page asks again by itself.`);
  if (!period) return signOut("There is no such customer for this token.");
  if (showsEndedMonth(customer, period)) return refresh();
  $("loading").hidden = true;
  $("name").textContent = customer?.name ?? customer?.organization ?? "Your bill";
  document.title = `Billing · ${$("name").textContent}`;
  $("panel").hidden = $("portal").hidden = $("leave").hidden = false;
  notice(
    state.failure ? state.failure
    : stale ? `Stripe does not answer right now. Usage is live; invoices and payments are as of ${clock(customer.freshness.fetchedAt)}.`
    : errors ? `${words(errors[0])} What is missing here follows by itself.` : "",
  );
  for (const section of document.querySelectorAll(".owed, .months, .bills")) section.hidden = !customer;
  if (customer) drawAbout(customer);
  drawNow(period);
  drawEstimate(period.total, period.estimate);
  if (customer?.invoices) drawOwed(customer, period);
  if (customer?.syncState) drawSync(customer.syncState);
  drawMonthPicker(customer?.spendHistory ?? [], period);
  drawUsage(data.shown, period);
  if (customer?.spendHistory) drawMonths(customer.spendHistory);
  if (customer?.invoices) drawInvoices(customer.invoices, period);
  const cost = extensions?.billing;
  $("cost").textContent = cost ? `This view: ${count(cost.stripeCalls, "Stripe call")}, ${cost.cacheHits} from the cache.` : "";
}

// On the first days of a month people ask about the one that has just been billed: it is shown until there is usage.
function showsEndedMonth(customer, period) {
  const [last] = customer?.spendHistory ?? [];
  if (state.month || !last || Number(period.total.amount) || last.month === period.start.slice(0, 7)) return false;
  state.month = last.month;
  return true;
}

function drawAbout({ organization, email, creditBalance, defaultPaymentMethod: card }) {
  const credit = Number(creditBalance?.amount) > 0 && `${creditBalance.rounded} credit, used for the next invoice`;
  const pays = card && `Pays with ${card.brand ?? "a saved method"}${card.last4 ? ` ending in ${card.last4}` : ""}`;
  $("about").textContent = [organization, email, pays, credit].filter(Boolean).join(" · ");
}

function drawOwed({ invoices, delinquent, defaultPaymentMethod: card }, period) {
  const owed = invoices.nodes.filter((invoice) => invoice.status === "OPEN");
  $("failed").hidden = !delinquent;
  $("owed").replaceChildren(...owed.map((invoice) => {
    const row = make("li");
    const when = !invoice.dueAt ? "" : `, ${invoice.isOverdue ? "overdue since" : "due"} ${day(invoice.dueAt)}`;
    const what = make("span", `for ${monthOf(invoice) || "an invoice"}${when}`);
    const why = Object.assign(make("button", "What is it made of?", "quiet"), { type: "button" });
    why.addEventListener("click", () => { selectMonth(invoice.periodStart.slice(0, 7)); $("use-title").scrollIntoView(); });
    row.append(make("strong", invoice.amountRemaining.rounded), what);
    if (invoice.hostedInvoiceUrl) row.append(link(invoice.hostedInvoiceUrl, "Pay", invoice.number, "pay"));
    if (invoice.periodStart) row.append(why);
    const again = invoice.nextPaymentAttemptAt ? ` It is tried again on ${day(invoice.nextPaymentAttemptAt)}.` : "";
    if (invoice.paymentFailure) row.append(make("p", `${invoice.paymentFailure.message}${again}`, "problem"));
    return row;
  }));
  const next = `The invoice for ${monthName(period.start)} follows after ${utc(period.end)}`;
  const how = card ? `, and is charged to your ${card.brand ?? "payment method"}${card.last4 ? ` ending in ${card.last4}` : ""}.` : ", and is paid online.";
  $("how").textContent = `${owed.length ? "" : "Nothing to pay now. "}${next}${how}`;
}

function drawNow(period) {
  const total = $("total");
  if (total.textContent && total.textContent !== period.total.rounded) {
    total.classList.remove("changed");
    void total.offsetWidth; // restarts the animation
    total.classList.add("changed");
  }
  total.textContent = period.total.rounded;
  if (Date.now() - state.announcedAt > 20_000) { // a screen reader should not announce every second
    state.announcedAt = Date.now();
    $("spoken").textContent = `${monthName(period.start)} so far: ${period.total.rounded}`;
  }
  $("now-title").textContent = `${monthName(period.start)} so far`;
  $("dates").textContent = `Usage until ${utc(period.end)}`;
  $("held").hidden = period.state !== "HELD";
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
  $("split").setAttribute("aria-label", parts.map(([, label, money]) => `${label}: ${money.rounded}`).join("; "));
  $("parts").replaceChildren(...parts.map(([, label, money, dot]) => {
    const row = make("div");
    row.style.setProperty("--dot", `var(${dot})`);
    row.append(make("dt", label), make("dd", money.rounded));
    return row;
  }));
  $("as-of").textContent = `Live, as of ${clock(period.asOf)}`;
}

const BILL = { OTHER_LINES: "Other items", DISCOUNT: "Discounts", TAX: "Tax", BALANCE: "Credit or debt from before", CARRIED_TO_BALANCE: "Carried to the next invoice", CREDIT_NOTES: "Credit notes" };

// From the usage to what will be asked for, where the two differ.
function drawEstimate(total, estimate) {
  const rows = (estimate?.rows ?? []).filter((row) => BILL[row.kind]);
  $("estimate").hidden = !rows.length;
  const due = estimate?.estimated ? "To pay if the month ended now, estimated" : "To pay if the month ended now";
  const shown = [["Usage", total.rounded], ...rows.map((row) => [BILL[row.kind], row.amount.rounded]), [due, estimate?.amountDue.rounded]];
  $("estimate").replaceChildren(...shown.map(([name, amount]) => {
    const row = make("div");
    row.append(make("dt", name), make("dd", amount));
    return row;
  }));
}

const SYNC_WORDS = {
  UP_TO_DATE: "Up to date", PENDING: "Waiting for the next sync", QUEUED: "Sync requested", RUNNING: "Syncing…",
  RETRYING: "Stripe is slow; retrying", FAILED: "Needs attention", HELD: "Paused by Support",
};

function drawSync(sync) {
  if (!sync) return;
  // The event with our sync's end may have been coalesced into a newer one.
  if (state.sync && sync.lastSync?.id === state.sync) drawProgress(sync.lastSync);
  $("sync-state").textContent = SYNC_WORDS[sync.status] ?? sync.status;
  $("sync-state").dataset.status = sync.status;
  const waiting = sync.pendingDeltas ? `${count(sync.pendingDeltas, "usage record")} waiting` : "Nothing waiting";
  const next = sync.nextSyncAt && sync.pendingDeltas ? `, next sync ${clock(sync.nextSyncAt)}` : "";
  const last = sync.lastSyncedAt ? ` · last sent ${clock(sync.lastSyncedAt)}` : "";
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
  const progress = {
    QUEUED: "Waiting for a worker…", RUNNING: "Sending to Stripe…",
    RETRYING: "Stripe asked us to wait; trying again…",
    SUCCEEDED: sync.stripeCalls ? `Done: ${count(lines, "line")} in ${count(sync.stripeCalls, "Stripe call")}.` : "Stripe was up to date already.",
    FAILED: sync.failure?.message ?? "It failed; Support can see why.",
  };
  $("sync-progress").textContent = progress[sync.status] ?? "";
  drawSteps(sync.status);
  $("sync").disabled = ["QUEUED", "RUNNING"].includes(sync.status);
}

function drawMonthPicker(history, period) {
  const current = period.start.slice(0, 7);
  const months = [...new Set([current, ...history.map((entry) => entry.month), ...(state.month ? [state.month] : [])])].sort().reverse();
  if (changed("picker", months)) $("month").replaceChildren(...months.map((each) => new Option(monthName(`${each}-01T00:00Z`), each)));
  $("month").value = state.month ?? current;
}

function drawUsage(shown, period) {
  pressTab();
  $("bars").removeAttribute("aria-busy");
  if (!changed("usage", [state.by, state.all, state.month, shown])) return;
  const what = DIMENSIONS[state.by].toLowerCase();
  $("bars-caption").textContent = `${monthName(shown?.start ?? period.start)} by ${what}`;
  $("more").hidden = true;
  if (!shown) return $("bars").replaceChildren(lone("What this month was made of is no longer kept here; its invoice has the lines."));
  if (!shown.usage.length) return $("bars").replaceChildren(lone("No usage yet this month."));
  // The largest first, whatever their sign: a credit that made the bill what it is stays in sight.
  const rows = [...shown.usage].sort((a, b) => Math.abs(Number(b.amount.amount)) - Math.abs(Number(a.amount.amount)));
  const largest = Math.abs(Number(rows[0].amount.amount)) || 1;
  const visible = rows.slice(0, state.all ? undefined : ROWS);
  $("bars").replaceChildren(...visible.map((row) => usageRow(row, largest, what)), ...sumRows(rows, visible, shown.total));
  $("more").hidden = rows.length <= ROWS;
  $("more").textContent = state.all ? "Show fewer" : `Show all ${rows.length}`;
  $("more").setAttribute("aria-expanded", String(state.all));
}

function usageRow(row, largest, what) {
  const isCredit = Number(row.amount.amount) < 0;
  const bar = make("i", "", isCredit ? "credit" : "");
  bar.style.width = `${(100 * Math.abs(Number(row.amount.amount))) / largest}%`;
  const label = make("th", rowName(row, what), "label");
  label.scope = "row";
  if (row.unitPrice && state.by === "SKU") label.append(make("span", `${quantity(row.quantity)} ${row.unit ?? ""} × ${row.unitPrice.formatted}`, "price"));
  const [barCell, amount] = [make("td", "", "bar"), make("td", row.amount.rounded, isCredit ? "number credit" : "number")];
  amount.title = row.amount.formatted;
  barCell.append(bar);
  const line = make("tr");
  line.append(label, barCell, amount);
  return asRow(line);
}

function rowName({ key, description, amount, corrections }, what) {
  if (key.startsWith("rest:")) return `${key.slice(5)} others`;
  if (state.by === "SKU") return description ?? key;
  if (key) return key;
  if (!corrections) return `Not assigned to ${what === "app" || what === "organization" ? "an" : "a"} ${what}`;
  return corrections.amount === amount.amount ? "Corrections by Support" : `Without ${what}, with corrections by Support of ${corrections.rounded}`;
}

// What is not listed, the rounding, and the total: rows are rounded one by one, and so are the lines of the invoice.
function sumRows(rows, visible, total) {
  const sum = (some) => some.reduce((all, row) => all + minor(row.amount.rounded), 0n);
  const rest = rows.slice(visible.length);
  const rounding = minor(total.rounded) - sum(rows);
  const more = [
    rest.length ? [`${rest.length} more`, money(sum(rest), total.rounded)] : null,
    rounding ? ["Rounding: the invoice rounds each item", money(rounding, total.rounded)] : null,
    ["Total", total.rounded],
  ];
  return more.filter(Boolean).map(([name, amount]) => {
    const line = make("tr", "", name === "Total" ? "sum total-row" : "sum");
    const label = make("th", name, "label");
    label.scope = "row";
    line.append(label, make("td", "", "bar"), make("td", amount, "number"));
    return asRow(line);
  });
}

function drawMonths(months) {
  const recent = months.slice(0, SHOWN_MONTHS);
  if (!changed("months", recent)) return;
  const largest = Math.max(...recent.map((entry) => Number(entry.total.amount)), 0) || 1;
  $("months").replaceChildren(...[...recent].reverse().map((entry) => {
    const column = make("li");
    const bar = make("i");
    bar.style.height = `${(6 * Math.max(0, Number(entry.total.amount))) / largest}rem`;
    column.append(make("span", entry.total.rounded.replace(/^[A-Z]+ /, "")), bar, make("span", month(entry.month)));
    return column;
  }));
  if (!recent.length) $("months").replaceChildren(make("li", "The first bill comes when this month has ended.", "none"));
}

const STATUS = { DRAFT: "not issued yet", OPEN: "to pay", PAID: "paid", UNCOLLECTIBLE: "written off", VOID: "canceled" };

function drawInvoices({ nodes, pageInfo }, period) {
  const oldest = nodes.map((invoice) => invoice.freshness).sort((a, b) => a.fetchedAt.localeCompare(b.fetchedAt))[0];
  $("bills-fresh").textContent = !oldest ? "" : oldest.source === "STALE" ? `Last known, read ${clock(oldest.fetchedAt)}` : "Up to date";
  $("bills-fresh").title = oldest ? `Read from Stripe ${clock(oldest.fetchedAt)}` : "";
  if (!state.older.length) state.cursor = pageInfo.hasNextPage ? pageInfo.endCursor : null;
  $("older").hidden = !state.cursor;
  const invoices = [...nodes, ...state.older].sort((a, b) => (b.periodStart ?? "").localeCompare(a.periodStart ?? ""));
  if (!changed("bills", invoices.map(({ freshness, ...rest }) => rest))) return;
  $("bills").replaceChildren(...invoices.map((invoice) => invoiceRow(invoice, period)));
  if (!invoices.length) $("bills").replaceChildren(lone("No invoices yet."));
}

function invoiceRow(invoice, period) {
  const row = make("tr");
  const links = make("td", "", "links");
  const isCurrent = invoice.status === "DRAFT" && invoice.periodStart === period.start;
  const name = invoice.number ?? (isCurrent ? `${monthName(period.start)} so far` : "Draft");
  if (invoice.hostedInvoiceUrl) links.append(link(invoice.hostedInvoiceUrl, invoice.status === "OPEN" ? "Pay" : "View", name, invoice.status === "OPEN" ? "pay" : ""));
  if (invoice.invoicePdf) links.append(" ", link(invoice.invoicePdf, "PDF", name));
  const status = make("td", "", "status");
  status.append(make("span", STATUS[invoice.status] ?? invoice.status, `pill ${invoice.status}`));
  row.append(make("td", name), make("td", monthOf(invoice), "period"), status, make("td", invoice.total.rounded, "number"), links);
  return asRow(row);
}

async function showOlder() {
  const { customer: id, by, month } = state;
  try {
    const { customer } = (await execute(PANEL, { id, by, month, after: state.cursor })).data;
    if (!customer?.invoices || id !== state.customer) return;
    state.older.push(...customer.invoices.nodes);
    state.cursor = customer.invoices.pageInfo.hasNextPage ? customer.invoices.pageInfo.endCursor : null;
  } catch (error) {
    fail(error);
  }
  refresh();
}

function notice(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

// A failed act is explained for some seconds; then the page shows how things are now.
function fail(error) {
  state.failure = errorMessage(error);
  notice(state.failure);
  setTimeout(() => { state.failure = ""; if (state.customer) refresh(); }, 5000);
}

const make = (tag, text = "", name = "") => Object.assign(document.createElement(tag), { textContent: text, className: name });
// `Money.rounded` always has its currency's decimals, so its digits are an integer of minor units.
const minor = (text) => BigInt(text.replace(/[^\d-]/g, ""));
const money = (amount, like) => {
  const [currency, number] = like.split(" ");
  const places = number.split(".")[1]?.length ?? 0;
  const digits = String(amount < 0n ? -amount : amount).padStart(places + 1, "0");
  const whole = digits.slice(0, digits.length - places).replace(/\B(?=(\d{3})+$)/g, ",");
  return `${currency} ${amount < 0n ? "-" : ""}${whole}${places ? `.${digits.slice(-places)}` : ""}`;
};
const quantity = (text) => text.replace(/^-?\d+/, (whole) => whole.replace(/\B(?=(\d{3})+$)/g, ","));
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
  const time = at.toLocaleTimeString("en", { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23", timeZoneName: "short" });
  return at.toDateString() === now.toDateString() ? time : `${at.toLocaleDateString("en", { day: "numeric", month: "short" })}, ${time}`;
};
const day = (moment) => `${new Date(moment).toLocaleDateString("en", { day: "numeric", month: "long", timeZone: "UTC" })} (UTC)`;
const utc = (moment) => `${new Date(moment).toLocaleDateString("en", { day: "numeric", month: "long", timeZone: "UTC" })}, 00:00 UTC`;
const monthName = (moment) => new Date(moment).toLocaleDateString("en", { month: "long", year: "numeric", timeZone: "UTC" });
const monthOf = (invoice) => (invoice.periodStart ? monthName(invoice.periodStart) : "");

// --- sign in and sign out ---------------------------------------------------------------------------

async function signIn(token) {
  // Characters that no HTTP header may contain: spaces, or the "…" of a token that was cut short on a screen.
  if (!/^[\x21-\x7e]+$/.test(token)) throw new ApiError({ message: "That is not a whole token; copy all of it." }, 401);
  state.token = token;
  const { data: { viewer }, errors } = await execute(VIEWER);
  // While Stripe is away the names are missing, and the ids are those of the token.
  const customers = viewer.customers?.nodes ?? viewer.customerIds.map((id) => ({ id }));
  if (!customers.length && errors) throw new ApiError(errors[0], 503);
  if (!customers.length) throw new ApiError({ message: "This token names no customer; a customer's or Support's token does." }, 403);
  sessionStorage.setItem("token", token);
  $("enter").hidden = true;
  $("pick").replaceChildren(...customers.map((customer) => new Option(customer.name ?? customer.organization ?? customer.id, customer.id)));
  if (viewer.customers?.pageInfo.hasNextPage) {
    $("pick").append(Object.assign(new Option(`Only the newest ${customers.length} are listed`), { disabled: true }));
  }
  $("pick-label").hidden = customers.length < 2;
  const last = customers.find((customer) => customer.id === sessionStorage.getItem("customer"));
  selectCustomer((last ?? customers[0]).id);
}

function selectCustomer(customer) {
  Object.assign(state, { customer, failure: "", month: null, older: [], cursor: null });
  sessionStorage.setItem("customer", customer);
  $("pick").value = customer;
  refresh();
  follow(customer);
}

function selectMonth(month) {
  state.month = month;
  $("month").value = month;
  $("bars").setAttribute("aria-busy", "true");
  refresh();
}

function pressTab() {
  for (const button of $("by").children) button.setAttribute("aria-pressed", String(button.value === state.by));
}

function signOut(reason = "") {
  state.follow?.abort();
  clearTimeout(state.retryTimer);
  state.token = state.customer = null; // a response that arrives later is not rendered
  sessionStorage.removeItem("token");
  $("panel").hidden = $("portal").hidden = $("leave").hidden = $("pick-label").hidden = true;
  $("loading").hidden = true;
  $("name").textContent = "Welcome";
  document.title = "Billing";
  $("about").textContent = $("cost").textContent = ""; // no data of the previous customer stays on the screen
  $("enter").hidden = false;
  $("enter-problem").textContent = reason;
  if (reason) $("token").focus();
  notice("");
}

// Prompts for another token when this one is rejected; retries it while the gateway is unavailable.
async function signInWithRetry(token, pause = 1000) {
  $("loading").hidden = false;
  try {
    await signIn(token);
    notice("");
  } catch (error) {
    if (!isTransient(error)) return signOut(errorMessage(error));
    $("name").textContent = "One moment";
    notice(`${errorMessage(error)} This page asks again by itself.`);
    setTimeout(() => signInWithRetry(token, Math.min(pause * 2, 15000)), pause);
  }
}

for (const [by, label] of Object.entries(DIMENSIONS)) {
  const button = Object.assign(make("button", label), { type: "button", value: by });
  button.addEventListener("click", () => {
    Object.assign(state, { by, all: false });
    pressTab();
    $("bars").setAttribute("aria-busy", "true");
    refresh();
  });
  $("by").append(button);
}
$("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  signInWithRetry($("token").value.trim().replace(/^Bearer\s+/i, ""));
});
$("leave").addEventListener("click", () => signOut());
$("pick").addEventListener("change", () => selectCustomer($("pick").value));
$("month").addEventListener("change", () => selectMonth($("month").value));
$("older").addEventListener("click", showOlder);
$("more").addEventListener("click", () => { state.all = !state.all; refresh(); });
$("sync").addEventListener("click", async () => {
  $("sync").disabled = true;
  try {
    const { sync, errors } = (await execute(SYNC, { id: state.customer })).data.syncBilling;
    state.sync = sync?.id ?? null;
    $("sync-progress").textContent = errors[0] ? words(errors[0]) : "Waiting for a worker…";
    if (!sync) $("sync").disabled = false;
  } catch (error) {
    $("sync-progress").textContent = `${errorMessage(error)} Try again in a moment.`;
    $("sync").disabled = false;
  }
});
$("portal").addEventListener("click", async () => {
  $("portal").disabled = true;
  try {
    const { url, errors } = (await execute(PORTAL, { id: state.customer, back: location.href })).data.createPortalSession;
    if (url) location.assign(url);
    else fail(new ApiError({ ...errors[0], extensions: errors[0] }));
  } catch (error) {
    fail(error);
  }
  $("portal").disabled = false;
});

// A link may have the token in its fragment (`/#token=…`), which is not sent to a server. It is removed from the
// address bar at once.
const linkedToken = new URLSearchParams(location.hash.slice(1)).get("token");
if (linkedToken) history.replaceState(null, "", location.pathname);
// Whoever sent the link would see what is done in their name: it is asked first, except on one's own machine.
const storedToken = sessionStorage.getItem("token");
const isLoopback = ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname);
const isTrusted = linkedToken === storedToken || (isLoopback && !storedToken);
const accepted = linkedToken && (isTrusted || confirm("Open the bill of this link? You will be signed in as whoever made it."));
const initialToken = accepted ? linkedToken : storedToken;
if (initialToken) signInWithRetry(initialToken);
else signOut();
