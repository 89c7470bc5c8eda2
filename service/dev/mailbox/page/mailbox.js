// The page of the mailbox. Everything of a mail goes in as text, its HTML only into a sandboxed frame.

const PAGE = 50;
const REFRESH = 2000; // milliseconds
const $ = (id) => document.getElementById(id);
const state = { query: "", limit: PAGE, shown: "", messages: [], opened: null, tab: "html", narrow: false };

function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

async function ask(path, options) {
  const answer = await fetch(path, options);
  if (!answer.ok) throw new Error(`${path} answered ${answer.status}`);
  return answer;
}

// the list

async function refresh() {
  const path = state.query ? `api/v1/search?query=${encodeURIComponent(state.query)}&` : "api/v1/messages?";
  try {
    const text = await (await ask(`${path}limit=${state.limit}`)).text();
    if (text === state.shown) return;
    state.shown = text;
    list(JSON.parse(text));
  } catch {
    $("count").textContent = "The mailbox does not answer. Is it still running?";
    state.shown = "";
  }
}

function list(page) {
  state.messages = page.messages;
  const found = page.messages_count;
  const counted = `${found} ${found === 1 ? "mail" : "mails"}${state.query ? " found" : ""}`;
  $("count").textContent = page.messages_unread ? `${counted}, ${page.messages_unread} unread` : counted;
  $("mails").replaceChildren(...page.messages.map(line));
  $("more").hidden = page.messages.length >= found;
  $("delete-all").disabled = page.total === 0;
  document.title = page.unread ? `(${page.unread}) Mailbox` : "Mailbox";
  if (!state.opened) nothing();
}

function line(mail) {
  const to = [...mail.To, ...mail.Cc, ...mail.Bcc].map((one) => one.Name || one.Address).join(", ");
  const from = mail.From ? mail.From.Name || mail.From.Address : "(no sender)";
  const link = make("a", {
    href: `#${mail.ID}`, class: mail.Read ? null : "unread", "aria-current": mail.ID === state.opened ? "true" : null,
  },
  make("span", { class: "subject" }, mail.Subject || "(no subject)"),
  make("time", { datetime: mail.Created, title: long(mail.Created) }, short(mail.Created)),
  make("span", { class: "people", title: `${from} → ${to}` }, make("span", {}, from), "→", make("span", {}, to)),
  make("span", { class: mail.Attachments ? "snippet clip" : "snippet" }, mail.Snippet || "(empty)"));
  return make("li", {}, link);
}

const long = (time) => new Date(time).toLocaleString(undefined, { dateStyle: "full", timeStyle: "medium" });

function short(time) {
  const then = new Date(time), now = new Date();
  if (then.toDateString() === now.toDateString()) {
    return then.toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
  }
  const year = then.getFullYear() === now.getFullYear() ? undefined : "numeric";
  return then.toLocaleDateString(undefined, { day: "numeric", month: "short", year });
}

// one mail

async function follow() {
  const id = location.hash.slice(1);
  state.opened = id || null;
  document.body.classList.toggle("opened", Boolean(id));
  for (const link of $("mails").querySelectorAll("a")) {
    if (link.hash.slice(1) === id) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
  if (!id) return nothing();
  try {
    const mail = await (await ask(`api/v1/message/${id}`)).json();
    if (state.opened === id) show(mail);
  } catch {
    $("mail").replaceChildren(make("p", { class: "empty" }, "This mail is gone."));
  }
  return refresh();
}

function nothing() {
  const words = state.messages.length || state.query
    ? [state.messages.length ? "Choose a mail." : "No mail matches."]
    : ["No mail yet. Whatever is sent by SMTP to this mailbox shows up here, and goes no further."];
  $("mail").replaceChildren(make("p", { class: "empty" }, ...words));
}

function show(mail) {
  const tabs = { html: mail.HTML ? "HTML" : null, text: "Text", headers: "Headers", source: "Source" };
  const tab = tabs[state.tab] ? state.tab : "text";
  const body = make("div", { class: "body" });
  const blocked = tab === "html" ? remote(mail.HTML) : 0;
  const note = blocked
    ? make("p", { class: "note" }, `${blocked} ${blocked === 1 ? "image or style is" : "images or styles are"} not loaded from the network here.`)
    : null;
  $("mail").replaceChildren(head(mail), tools(mail, tabs, tab), ...(note ? [note] : []), body);
  ({ html, text, headers, source })[tab](mail, body);
}

function head(mail) {
  const rows = [["From", mail.From ? [mail.From] : []], ["To", mail.To], ["Cc", mail.Cc], ["Bcc", mail.Bcc], ["Reply to", mail.ReplyTo]];
  const listed = rows.filter(([, people]) => people.length).flatMap(([name, people]) => [make("dt", {}, name), make("dd", {}, ...addresses(people))]);
  const files = mail.Attachments.map((file) => make("li", {}, make("a", {
    class: "clip", href: `api/v1/message/${mail.ID}/part/${file.PartID}`, target: "_blank", rel: "noopener", title: file.ContentType,
  }, `${file.FileName} `, make("span", {}, bytes(file.Size)))));
  return make("div", { class: "head" },
    make("a", { class: "back", href: "#" }, "← All mails"),
    make("h1", {}, mail.Subject || "(no subject)"),
    make("dl", {}, ...listed, make("dt", {}, "Date"), make("dd", {}, `${long(mail.Date)}, ${bytes(mail.Size)}`)),
    files.length ? make("ul", { class: "files", "aria-label": "Attachments" }, ...files) : null);
}

function addresses(people) {
  return people.flatMap((one, at) => [
    at ? ", " : "", one.Name ? `${one.Name} ` : "", make("span", { class: one.Name ? "address" : null }, one.Name ? `<${one.Address}>` : one.Address),
  ]);
}

function tools(mail, tabs, tab) {
  const choose = (name) => () => { state.tab = name; show(mail); };
  const choices = Object.entries(tabs).filter(([, label]) => label).map(([name, label]) =>
    make("button", { type: "button", role: "tab", "aria-selected": String(name === tab), onclick: choose(name) }, label));
  const narrow = tab === "html" ? make("button", {
    type: "button", class: "wide", "aria-pressed": String(state.narrow), title: "Show it as wide as a phone",
    onclick: () => { state.narrow = !state.narrow; show(mail); },
  }, "Phone width") : null;
  return make("div", { class: "tools" },
    make("div", { class: "group", role: "tablist", "aria-label": "Views" }, ...choices), narrow, make("span", { class: "space" }),
    make("button", { type: "button", onclick: () => unread(mail.ID) }, "Mark unread"),
    make("button", { type: "button", class: "danger", onclick: () => remove(mail.ID) }, "Delete"));
}

function html(mail, body) {
  body.append(make("iframe", {
    title: "The mail", src: `view/${mail.ID}.html`, class: state.narrow ? "narrow" : null, referrerpolicy: "no-referrer",
    sandbox: "allow-popups allow-popups-to-escape-sandbox",
  }));
}

function text(mail, body) {
  body.append(make("pre", {}, mail.Text || "(empty)"));
}

async function headers(mail, body) {
  const found = await (await ask(`api/v1/message/${mail.ID}/headers`)).json();
  const rows = Object.entries(found).flatMap(([name, values]) => values.map((value) => make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, value))));
  body.replaceChildren(make("table", {}, make("tbody", {}, ...rows)));
}

async function source(mail, body) {
  const raw = await (await ask(`api/v1/message/${mail.ID}/raw`)).text();
  body.replaceChildren(
    make("p", { class: "note" }, make("a", { href: `api/v1/message/${mail.ID}/raw?dl=1` }, "Save as .eml")), make("pre", {}, raw));
}

const remote = (markup) => (markup.match(/(?:\bsrc|\bbackground)\s*=\s*["']?https?:|url\(\s*["']?https?:/gi) || []).length;

function bytes(size) {
  if (size < 1000) return `${size} B`;
  return size < 1e6 ? `${(size / 1e3).toFixed(1)} kB` : `${(size / 1e6).toFixed(1)} MB`;
}

// changes

const json = (method, value) => ({ method, headers: { "Content-Type": "application/json" }, body: JSON.stringify(value) });

async function unread(id) {
  await ask("api/v1/messages", json("PUT", { Read: false, IDs: [id] }));
  location.hash = "";
}

async function remove(id) {
  const at = state.messages.findIndex((mail) => mail.ID === id);
  const next = state.messages[at + 1] || state.messages[at - 1];
  await ask("api/v1/messages", json("DELETE", { IDs: [id] }));
  location.hash = next && !matchMedia("(max-width: 720px)").matches ? next.ID : "";
  refresh();
}

async function removeAll() {
  await (state.query
    ? ask(`api/v1/search?query=${encodeURIComponent(state.query)}`, { method: "DELETE" })
    : ask("api/v1/messages", { method: "DELETE" }));
  $("sure").close();
  location.hash = "";
  refresh();
}

function step(by) {
  const at = state.messages.findIndex((mail) => mail.ID === state.opened);
  const next = state.messages[at === -1 ? 0 : at + by];
  if (next) location.hash = next.ID;
}

$("delete-all").addEventListener("click", () => {
  $("sure-text").textContent = state.query ? `Delete every mail that matches “${state.query}”?` : "Delete every mail?";
  $("sure").showModal();
});
$("sure-yes").addEventListener("click", removeAll);
$("sure-no").addEventListener("click", () => $("sure").close());
$("more").addEventListener("click", () => { state.limit += PAGE; refresh(); });
$("search").addEventListener("input", () => {
  state.query = $("search").value.trim();
  state.limit = PAGE;
  refresh();
});
addEventListener("hashchange", follow);
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
addEventListener("keydown", (event) => {
  if (event.target.closest("input, dialog") || event.ctrlKey || event.metaKey || event.altKey) return;
  const moves = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 };
  if (event.key in moves) { event.preventDefault(); step(moves[event.key]); }
  if (event.key === "/") { event.preventDefault(); $("search").focus(); }
});
setInterval(() => { if (!document.hidden) refresh(); }, REFRESH);

await refresh();
follow();
