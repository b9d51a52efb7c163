// A list of labels that are likely wrong, one photo at a time. Each decision is saved at once.

const $ = (id) => document.getElementById(id);
const token = new URLSearchParams(location.search).get("token") || "";
const DONE = { keep: "Kept", change: "Changed", drop: "Dropped" };
let rows = [];
let at = 0;
let saving = Promise.resolve();

function complain(text) {
  $("wrong").textContent = text;
  $("wrong").hidden = !text;
}

async function ask(path, body) {
  const options = { headers: { "X-Token": token } };
  if (body) {
    options.method = "POST";
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("ppcls fix-labels does not answer: was it ended? Start it again; what was decided is saved.");
  }
  const found = await answer.json().catch(() => ({ error: answer.statusText }));
  if (!answer.ok) throw new Error(found.error);
  return found;
}

const source = (number, side) => `/image/${number}?side=${side}&token=${encodeURIComponent(token)}`;
const target = (row) => row.new_label || row.suggested;

function words(row) {
  if (!row.decision) return "";
  if (row.decision === "keep") return `Kept: ${row.label}`;
  return row.decision === "drop" ? "Dropped: it will not be learnt from" : `Changed to ${target(row)}`;
}

function show(number) {
  at = number;
  const row = rows[at];
  $("image").hidden = false;
  $("unread").hidden = true;
  $("image").src = source(at, 1024);
  $("image").alt = `Photo labelled ${row.label}`;
  $("path").textContent = row.path;
  $("place").textContent = `${at + 1} of ${rows.length}`;
  $("label").textContent = $("keep-label").textContent = row.label;
  $("suggestion").hidden = $("change").hidden = !row.suggested;
  $("suggested").textContent = $("change-label").textContent = row.suggested;
  const sure = row.confidence === "" ? NaN : Number(row.confidence);
  $("sure").hidden = !(sure >= 0);
  $("confidence").textContent = `Wrong with a probability of ${Math.round(100 * sure)} %`;
  $("meter").value = sure >= 0 ? sure : 0;
  $("why").textContent = row.why;
  $("class").value = "";
  $("back").disabled = at === 0;
  $("next").disabled = at === rows.length - 1;
  mark(at);
  $("strip").querySelector("[aria-current]")?.removeAttribute("aria-current");
  const item = $("strip").children[at];
  item.firstChild.setAttribute("aria-current", "true");
  $("strip").scrollLeft = item.offsetLeft - ($("strip").clientWidth - item.clientWidth) / 2;
}

function paint(number) {
  const row = rows[number];
  const button = $("strip").children[number].firstChild;
  button.className = row.decision;
  const done = row.decision ? `, ${DONE[row.decision].toLowerCase()}` : "";
  button.setAttribute("aria-label", `${number + 1}: ${row.label}${done}`);
}

function mark(number) {
  paint(number);
  $("decided").textContent = words(rows[at]);
  $("decided").className = rows[at].decision;
  $("undo").disabled = !rows[at].decision;
  const decided = rows.filter((one) => one.decision).length;
  $("count").textContent = `${decided} of ${rows.length} decided`;
  $("progress").max = rows.length;
  $("progress").value = decided;
}

function decide(decision, label = "") {
  const number = at;
  const row = rows[number];
  if (decision === "change" && label === row.label) [decision, label] = ["keep", ""];
  const before = [row.decision, row.new_label];
  [row.decision, row.new_label] = [decision, decision === "change" ? label : ""];
  mark(number);
  saving = saving
    .then(() => ask("/decide", { number, decision: row.decision, new_label: row.new_label }))
    .then(() => complain(""))
    .catch((error) => {
      [row.decision, row.new_label] = before;
      show(number);
      complain(error.message);
    });
  if (decision) {
    const order = [...rows.keys()].map((step) => (number + step) % rows.length);
    const next = order.find((one) => !rows[one].decision);
    if (next !== undefined) show(next);
  }
}

const actions = {
  k: () => decide("keep"),
  c: () => rows[at].suggested && decide("change", rows[at].suggested),
  d: () => decide("drop"),
  u: () => rows[at].decision && decide(""),
  o: () => $("class").focus(),
  ArrowLeft: () => at > 0 && show(at - 1),
  ArrowRight: () => at < rows.length - 1 && show(at + 1),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !rows.length) return;
  if (event.target.tagName === "INPUT") {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const action = actions[event.key] || actions[event.key.toLowerCase()];
  if (action) {
    event.preventDefault();
    action();
  }
});
for (const [id, key] of [["keep", "k"], ["change", "c"], ["drop", "d"], ["undo", "u"], ["back", "ArrowLeft"], ["next", "ArrowRight"]])
  $(id).addEventListener("click", () => actions[key]());
$("other").addEventListener("submit", (event) => {
  event.preventDefault();
  const label = $("class").value.trim();
  if (!label) return;
  $("class").blur();
  decide("change", label);
});
$("image").addEventListener("error", () => {
  $("image").hidden = true;
  $("unread").hidden = false;
});
$("done").addEventListener("click", async () => {
  await saving;
  try {
    await ask("/end", {});
    $("main").hidden = $("all").hidden = $("done").hidden = true;
    complain("");
    $("count").textContent += ". The server has ended; this page may be closed.";
  } catch (error) {
    complain(error.message);
  }
});

try {
  const found = await ask("/list");
  rows = found.rows;
  $("file").textContent = found.file;
  $("train").textContent = found.train;
  document.title = `${found.file}: labels to check`;
  for (const name of found.classes) $("classes").append(new Option(name));
  for (const [number, row] of rows.entries()) {
    const item = document.createElement("li");
    const button = document.createElement("button");
    const image = document.createElement("img");
    const text = document.createElement("span");
    button.type = "button";
    image.loading = "lazy";
    image.alt = "";
    image.src = source(number, 160);
    text.textContent = row.label;
    button.append(image, text);
    button.addEventListener("click", () => show(number));
    item.append(button);
    $("strip").append(item);
    paint(number);
  }
  $("main").hidden = false;
  show(Math.max(0, rows.findIndex((row) => !row.decision)));
} catch (error) {
  complain(error.message);
}
