// The page of `ppcls serve`: photos go to POST /predict, one request each, and answers become cards.

const TEXTS = {
  en: {
    skip: "To the photos", model: "Model", drop: "Drop photos here", or: "or paste one, or",
    choose: "Choose photos", camera: "Use the camera", key: "This service asks for a key:",
    "use-key": "Use it", sure: "Sure from", clear: "Clear", results: "Answers",
    call: "Call it from a program", copy: "Copy", copied: "Copied", docs: "All of the API",
    take: "Take the photo", close: "Close", waits: "Looking …", unsure: "not sure",
    none: "None of the classes", photo: "photo", pasted: "pasted photo",
    time: "{total} ms, of which the network took {engine}",
    about: "{count} classes: {some}. Version {version}, {engine}.", starting: "The model is being loaded …",
    unreachable: "The service cannot be reached; is it still running?",
    nocamera: "The camera cannot be used: {why}",
    spoken: "{name}: {answer}", unsureSpoken: "not sure, perhaps {answer}",
  },
  zh: {
    skip: "跳到照片区", model: "模型", drop: "把照片拖到这里", or: "或粘贴一张，或",
    choose: "选择照片", camera: "使用相机", key: "此服务需要密钥：",
    "use-key": "使用", sure: "置信度不低于", clear: "清空", results: "结果",
    call: "在程序中调用", copy: "复制", copied: "已复制", docs: "完整 API",
    take: "拍照", close: "关闭", waits: "识别中……", unsure: "不确定",
    none: "不属于任何类别", photo: "照片", pasted: "粘贴的照片",
    time: "{total} 毫秒，其中网络 {engine} 毫秒",
    about: "{count} 个类别：{some}。版本 {version}，{engine}。", starting: "模型加载中……",
    unreachable: "无法连接到服务，它还在运行吗？",
    nocamera: "无法使用相机：{why}",
    spoken: "{name}：{answer}", unsureSpoken: "不确定，可能是 {answer}",
  },
};
const AT_ONCE = 4; // requests
const SHOWN = 8; // class names in the line at the top
const $ = (id) => document.getElementById(id);
const read = (key, otherwise) => {
  try { return localStorage.getItem(key) ?? otherwise; } catch { return otherwise; }
};
const keep = (key, value) => {
  try { localStorage.setItem(key, value); } catch { /* private browsing */ }
};

let language = read("ppcls.language", navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");
let models = [];
let key = "";
let running = 0;
const waiting = [];
const cards = [];

function say(name, values = {}) {
  return TEXTS[language][name].replace(/\{(\w+)\}/g, (_, word) => values[word]);
}

function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function translate() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const element of document.querySelectorAll("[data-text]")) write(element, say(element.dataset.text));
  $("results").setAttribute("aria-label", say("results"));
  $("language").textContent = language === "zh" ? "English" : "中文";
  $("language").lang = language === "zh" ? "en" : "zh-CN";
  describe();
  cards.forEach(draw);
}

function headers() {
  return key ? { Authorization: `Bearer ${key}` } : {};
}

function current() {
  return models.find((model) => model.name === $("model").value) ?? models[0];
}

async function look() {
  let answer;
  try {
    answer = await fetch("/models", { headers: headers() });
  } catch {
    write($("about"), say("unreachable"));
    return;
  }
  if (answer.status === 401) {
    $("key-form").hidden = false;
    return;
  }
  models = (await answer.json()).models;
  const names = models.map((model) => model.name);
  const chosen = $("model").value;
  $("model").replaceChildren(...names.map((name) => new Option(name, name, false, name === chosen)));
  $("model-label").hidden = names.length < 2;
  describe();
  if (models.some((model) => !model.ready)) setTimeout(look, 1000);
}

function describe() {
  const model = current();
  if (!model) return;
  write($("title"), model.name);
  document.title = `${model.name} · ppcls`;
  if (!model.ready) {
    write($("about"), model.problem || say("starting"));
  } else {
    const some = model.classes.slice(0, SHOWN).join(", ") + (model.classes.length > SHOWN ? " …" : "");
    const count = model.classes.length;
    const { version, engine } = model;
    write($("about"), count ? say("about", { count, some, version, engine }) : engine);
  }
  const query = models.length > 1 ? `?model=${encodeURIComponent(model.name)}` : "";
  const address = `${location.origin}/predict${query}`;
  const secret = key ? " -H 'Authorization: Bearer KEY'" : "";
  write($("curl"), `curl${secret} -F image=@photo.jpg '${address}'`);
  const more = key ? `, headers={"Authorization": "Bearer KEY"}` : "";
  write($("python"), [
    "import requests", "",
    `with open("photo.jpg", "rb") as photo:`,
    `    answer = requests.post("${address}", files={"image": photo}${more})`,
    "answer.raise_for_status()",
    `for prediction in answer.json()["predictions"]:`,
    `    print(prediction["labels"], prediction["scores"])`,
  ].join("\n"));
}

// ------------------------------------------------------------------ cards

function add(file, name) {
  const item = document.createElement("li");
  item.className = "card waits";
  const card = { file, name: name || file.name || say("photo"), item, answer: null, problem: "" };
  card.url = file.type.startsWith("image/") ? URL.createObjectURL(file) : "";
  cards.unshift(card);
  $("results").prepend(item);
  $("options").hidden = false;
  draw(card);
  waiting.push(card);
  next();
}

function element(kind, className, text = "") {
  const made = document.createElement(kind);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

function percent(score) {
  return new Intl.NumberFormat(document.documentElement.lang, { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 }).format(score);
}

function isUnsure(found) {
  return found.scores.length > 0 && found.scores[0] < Number($("sure").value) / 100;
}

function headline(card) {
  if (card.problem) return card.problem;
  if (!card.answer) return say("waits");
  const found = card.answer.predictions[0];
  return found.labels.length ? found.labels[0] : say("none");
}

function draw(card) {
  const { item } = card;
  const body = element("div", "body");
  item.className = card.problem ? "card wrong" : card.answer ? "card" : "card waits";
  const photo = card.url ? element("img", "photo") : element("div", "photo");
  if (card.url) {
    photo.src = card.url;
    photo.alt = "";
    photo.addEventListener("error", () => { photo.hidden = true; }, { once: true });
  }
  body.append(element("p", "answer", headline(card)), element("p", "name", card.name));
  body.querySelector(".name").title = card.name;
  if (card.answer) {
    const found = card.answer.predictions[0];
    if (isUnsure(found)) body.insertBefore(element("p", "badge", say("unsure")), body.firstChild);
    const bars = element("ul", "bars");
    found.labels.forEach((label, place) => {
      const line = element("li");
      const bar = element("span", "bar");
      bar.setAttribute("aria-hidden", "true");
      const filled = element("i");
      filled.style.width = `${100 * found.scores[place]}%`;
      bar.append(filled);
      const named = element("span", "label", label);
      named.title = label;
      line.append(named, element("span", "score", percent(found.scores[place])), bar);
      bars.append(line);
    });
    const { total, engine } = card.answer.milliseconds;
    body.append(bars, element("p", "times", say("time", { total: total.toFixed(0), engine: engine.toFixed(0) })));
  }
  item.replaceChildren(photo, body);
}

function next() {
  while (running < AT_ONCE && waiting.length) {
    running += 1;
    predict(waiting.shift()).finally(() => { running -= 1; next(); });
  }
}

async function predict(card) {
  const query = new URLSearchParams({ topk: "5" });
  if (models.length > 1) query.set("model", current().name);
  const body = new FormData();
  body.append("image", card.file, card.name);
  try {
    const answer = await fetch(`/predict?${query}`, { method: "POST", body, headers: headers() });
    const found = await answer.json();
    if (answer.status === 401) {
      $("key-form").hidden = false;
      $("key").focus();
    }
    if (answer.ok) card.answer = found;
    else card.problem = found.detail;
  } catch {
    card.problem = say("unreachable");
  }
  draw(card);
  const answer = headline(card);
  const unsure = card.answer && isUnsure(card.answer.predictions[0]);
  write($("spoken"), say("spoken", { name: card.name, answer: unsure ? say("unsureSpoken", { answer }) : answer }));
}

// ------------------------------------------------------------------ where photos come from

function take(list, name) {
  for (const file of list) add(file, name);
}

$("choose").addEventListener("click", () => $("files").click());
for (const id of ["files", "capture"]) {
  $(id).addEventListener("change", () => { take($(id).files); $(id).value = ""; });
}
let inside = 0;
addEventListener("dragenter", (event) => { event.preventDefault(); inside += 1; $("drop").classList.add("over"); });
addEventListener("dragleave", () => { inside -= 1; if (inside <= 0) $("drop").classList.remove("over"); });
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  inside = 0;
  $("drop").classList.remove("over");
  take(event.dataTransfer.files);
});
addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files ?? [])];
  if (files.length) take(files, files.length === 1 ? say("pasted") : undefined);
});

let stream = null;
function endCamera() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
}
$("camera").addEventListener("click", async () => {
  if (!navigator.mediaDevices?.getUserMedia) {
    $("capture").click(); // a phone without https opens its camera for it
    return;
  }
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    write($("about"), say("nocamera", { why: error.message }));
    return;
  }
  $("video").srcObject = stream;
  $("camera-dialog").showModal();
});
$("take").addEventListener("click", () => {
  const video = $("video");
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  canvas.toBlob((blob) => add(blob, `${say("photo")} ${new Date().toLocaleTimeString()}`), "image/jpeg", 0.95);
  $("camera-dialog").close();
});
$("close-camera").addEventListener("click", () => $("camera-dialog").close());
$("camera-dialog").addEventListener("close", endCamera);

// ------------------------------------------------------------------ settings

$("language").addEventListener("click", () => {
  language = language === "zh" ? "en" : "zh";
  keep("ppcls.language", language);
  translate();
});
$("model").addEventListener("change", describe);
$("sure").value = read("ppcls.sure", "50");
function showSure() {
  write($("sure-value"), `${$("sure").value} %`);
  cards.forEach(draw);
}
$("sure").addEventListener("input", () => { keep("ppcls.sure", $("sure").value); showSure(); });
$("clear").addEventListener("click", () => {
  for (const card of cards.splice(0)) if (card.url) URL.revokeObjectURL(card.url);
  waiting.length = 0;
  $("results").replaceChildren();
  $("options").hidden = true;
  $("choose").focus();
});
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key = $("key").value;
  $("key").value = "";
  $("key-form").hidden = true;
  look();
});
for (const button of document.querySelectorAll(".copy")) {
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText($(button.dataset.copy).textContent);
    write(button, say("copied"));
    setTimeout(() => write(button, say("copy")), 1500);
  });
}

translate();
showSure();
look();
