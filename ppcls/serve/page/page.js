// The page of `ppcls serve`: photos go to POST /predict, one request each, and answers become cards.

const TEXTS = {
  en: {
    skip: "To the photos", model: "Model", drop: "Drop photos here", or: "or paste one, or",
    choose: "Choose photos", camera: "Use the camera", key: "This service asks for a key",
    "use-key": "Use it", wrongKey: "This key is not known.", sure: "“Not sure” below",
    clear: "Clear", results: "Answers", call: "Call it from a program", copy: "Copy",
    copyOf: "Copy the call from {what}", copied: "Copied", docs: "All of the API",
    take: "Take the photo", close: "Close", waits: "Looking …", unsure: "Not sure",
    unknown: "Unlike all classes", either: " or ", decision: "Decision: {answer}",
    none: "None of the classes", photo: "photo", pasted: "pasted photo", again: "Try again",
    againAll: "Try {count} again", one: "1 photo", many: "{count} photos", part: "{done} of {count} photos",
    time: "{total} ms, of which the network took {engine}",
    about: "{count} classes: {some}", aboutOne: "1 class: {some}", between: ", ",
    version: "Version {version}, {engine}",
    starting: "The model is being loaded …", locked: "Photos are named once a key is given.",
    unreachable: "The service cannot be reached; is it still running?",
    odd: "The service answered with status {status}, and nothing that this page can read.",
    unreadable: "The file cannot be read; is it still there?",
    tooLarge: "The file has {size} MB; this service takes {most} MB at most.",
    nothing: "No file came; save the photo, then drop or choose its file.",
    tooMany: "The first {most} of {count} files are here; for more, call it from a program.",
    noCamera: "There is no camera here.",
    cameraRefused: "The browser does not let this page use the camera; its settings for this page do.",
    cameraFails: "The camera cannot be used: {why}",
    spoken: "{name}: {answer}", unsureSpoken: "not sure, perhaps {answer}",
    unknownSpoken: "unlike all classes, most like {answer}",
    where: "Where it looked", whereClass: "Class", little: "nothing", much: "most",
    nowhere: "No place speaks for it.", unseen: "Dark: not looked at",
    mapSpoken: "The photo now shows where the model saw {answer}",
    allSpoken: "{count} photos are done", failedSpoken: "{count} photos are done, {failed} of them failed",
  },
  zh: {
    skip: "跳到照片区", model: "模型", drop: "把照片拖到这里", or: "或粘贴一张，或",
    choose: "选择照片", camera: "使用相机", key: "此服务需要密钥",
    "use-key": "使用", wrongKey: "密钥无效。", sure: "置信度低于此值显示“不确定”",
    clear: "清空", results: "结果", call: "在程序中调用", copy: "复制",
    copyOf: "复制 {what} 调用代码", copied: "已复制", docs: "完整 API",
    take: "拍照", close: "关闭", waits: "识别中……", unsure: "不确定",
    unknown: "不像任何类别", either: "或", decision: "决策：{answer}",
    none: "不属于任何类别", photo: "照片", pasted: "粘贴的照片", again: "重试",
    againAll: "重试 {count} 张", one: "1 张照片", many: "{count} 张照片", part: "{done} / {count} 张照片",
    time: "{total} 毫秒，其中网络 {engine} 毫秒",
    about: "{count} 个类别：{some}", aboutOne: "1 个类别：{some}", between: "、",
    version: "版本 {version}，{engine}",
    starting: "模型加载中……", locked: "输入密钥后即可识别照片。",
    unreachable: "无法连接到服务，它还在运行吗？",
    odd: "服务返回状态码 {status}，但内容无法识别。",
    unreadable: "无法读取文件，它还在吗？",
    tooLarge: "文件有 {size} MB，此服务最多接受 {most} MB。",
    nothing: "没有收到文件；请先保存照片，再拖入或选择文件。",
    tooMany: "共 {count} 个文件，这里只处理前 {most} 个；更多请在程序中调用。",
    noCamera: "没有找到相机。",
    cameraRefused: "浏览器不允许此页面使用相机，可在浏览器的网站设置中更改。",
    cameraFails: "无法使用相机：{why}",
    spoken: "{name}：{answer}", unsureSpoken: "不确定，可能是 {answer}",
    unknownSpoken: "不像任何类别，最像 {answer}",
    where: "查看依据", whereClass: "类别", little: "无", much: "最强",
    nowhere: "没有支持该类别的区域。", unseen: "暗处：未参与识别",
    mapSpoken: "照片上已标出模型判断为 {answer} 的区域",
    allSpoken: "{count} 张照片已完成", failedSpoken: "{count} 张照片已完成，其中 {failed} 张失败",
  },
};
const AT_ONCE = 4; // requests
const CLASSES = "5"; // of an answer
const NAMED = 3; // classes of an answer that is not sure
const SHOWN = 90; // characters of class names at the top
const MOST = 200; // photos that come together
const SPOKEN_EACH = 3; // photos that come together and whose answers are spoken one by one
const TRIES = 30; // of a photo, where the service says that it is busy or not ready yet
const $ = (id) => document.getElementById(id);

function read(store, name, otherwise) {
  try { return store().getItem(`ppcls.${name}`) ?? otherwise; } catch { return otherwise; }
}
function keep(store, name, value) {
  try { store().setItem(`ppcls.${name}`, value); } catch { /* the browser keeps nothing */ }
}
const always = () => localStorage;
const inThisTab = () => sessionStorage;

let language = read(always, "language", navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");
let models = [];
let limits = {};
let state = "opening"; // then known, locked or unreachable
let key = read(inThisTab, "key", "");
let running = 0;
let looking; // the timer of the next look
const waiting = [];
const cards = [];

function say(name, values = {}) {
  return TEXTS[language][name].replace(/\{(\w+)\}/g, (_, word) => values[word]);
}

function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function element(kind, className, text = "") {
  const made = document.createElement(kind);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

function pause(seconds) {
  return new Promise((done) => { setTimeout(done, 1000 * seconds); });
}

function percent(share, digits = 1) {
  const options = { style: "percent", minimumFractionDigits: digits, maximumFractionDigits: digits };
  return new Intl.NumberFormat(document.documentElement.lang, options).format(share);
}

function translate() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const one of document.querySelectorAll("[data-text]")) write(one, say(one.dataset.text));
  for (const one of document.querySelectorAll(".copy")) {
    write(one, say("copy"));
    one.setAttribute("aria-label", say("copyOf", { what: one.dataset.copy === "curl" ? "curl" : "Python" }));
  }
  $("results").setAttribute("aria-label", say("results"));
  $("language").textContent = language === "zh" ? "English" : "中文";
  $("language").lang = language === "zh" ? "en" : "zh-CN";
  $("note").hidden = true;
  if ($("key-wrong").textContent) write($("key-wrong"), say("wrongKey"));
  describe();
  showSure();
  count();
  cards.forEach(draw);
}

function tell(name, values) {
  write($("note"), say(name, values));
  $("note").hidden = false;
}

function speak(text) {
  const place = $("spoken");
  place.append(element("p", "", text));
  while (place.children.length > SPOKEN_EACH) place.firstChild.remove();
}

// ------------------------------------------------------------------ the service

function headers() {
  return key ? { Authorization: `Bearer ${key}` } : {};
}

function current() {
  return models.find((model) => model.name === $("model").value) ?? models[0];
}

async function look() {
  clearTimeout(looking);
  let answer;
  let found;
  try {
    answer = await fetch("/models", { headers: headers() });
    found = await answer.json();
    if (!answer.ok && answer.status !== 401) throw new Error(found.detail);
  } catch {
    state = "unreachable";
    describe();
    looking = setTimeout(look, 2000);
    return;
  }
  if (answer.status === 401) {
    lock();
    return;
  }
  ({ models, limits = {} } = found);
  state = "known";
  const names = models.map((model) => model.name);
  const chosen = $("model").value || read(always, "model", "");
  $("model").replaceChildren(...names.map((name) => new Option(name, name, false, name === chosen)));
  $("model-label").hidden = names.length < 2;
  describe();
  if (models.some((model) => !model.ready)) looking = setTimeout(look, 1000);
  next();
}

function lock() {
  if (key) write($("key-wrong"), say("wrongKey"));
  key = "";
  keep(inThisTab, "key", "");
  state = "locked";
  describe();
  if ($("key-form").hidden) {
    $("key-form").hidden = false;
    $("key").focus();
  }
}

// As many names as there is room for; with a comma in one, a comma would not part them.
function someOf(names) {
  const between = names.some((name) => name.includes(",")) ? " · " : say("between");
  const some = [];
  let length = 0;
  for (const name of names) {
    length += name.length + between.length;
    if (some.length && length > SHOWN) return `${some.join(between)} …`;
    some.push(name);
  }
  return some.join(between);
}

function describe() {
  const model = current();
  write($("title"), model?.name ?? "ppcls");
  document.title = model ? `${model.name} · ppcls` : "ppcls";
  $("sure-label").hidden = model?.task === "multilabel" || model?.calibrated;
  $("about").classList.toggle("wrong", state === "unreachable" || Boolean(model?.problem));
  if (state !== "known") {
    write($("about"), state === "opening" ? "" : say(state));
  } else if (!model.ready) {
    write($("about"), model.problem || say("starting"));
  } else {
    const count = model.classes.length;
    const values = { count: count.toLocaleString(language), some: someOf(model.classes) };
    write($("about"), count ? say(count === 1 ? "aboutOne" : "about", values) : "");
  }
  write($("version"), state === "known" && model.ready ? say("version", model) : "");
  const name = encodeURIComponent(model?.name ?? "").replaceAll("'", "%27");
  const address = `${location.origin}/predict${models.length > 1 ? `?model=${name}` : ""}`;
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

// A photo, what is shown of it, and what is known: `answer`, or `problem`, a function that says it.
function makeCard(file, name, batch) {
  const item = element("li", "card");
  const photo = element("div", "photo");
  const picture = element("img");
  picture.alt = "";
  picture.decoding = "async";
  const url = URL.createObjectURL(file);
  // What the browser cannot show, such as HEIC, the service may well read.
  picture.addEventListener("error", () => {
    photo.classList.add("none");
    photo.replaceChildren(element("span", "", /\.(\w{1,5})$/.exec(file.name)?.[1].toUpperCase() ?? "?"));
  }, { once: true });
  picture.src = url;
  photo.append(picture);
  const body = element("div", "body");
  item.append(photo, body);
  return { file, name, batch, item, photo, picture, body, url, map: null, stop: new AbortController(), model: null, answer: null, problem: null };
}

// "unsure" or "unknown" where the answer is not sure, as a calibrated model says, else the slider; or "".
function doubt({ model, answer }) {
  const { scores = [], state } = answer?.predictions[0] ?? {};
  if (state) return state === "sure" ? "" : state;
  const low = scores.length > 0 && scores[0] < Number($("sure").value) / 100;
  return low && model?.task !== "multilabel" ? "unsure" : "";
}

function headline({ answer, problem, model }) {
  if (problem) return problem();
  if (!answer) return say("waits");
  const { labels, set = [], state } = answer.predictions[0];
  if (!labels.length) return say("none");
  if (state === "unsure" && set.length > 1) {
    return set.slice(0, NAMED).join(say("either")) + (set.length > NAMED ? " …" : "");
  }
  return model?.task === "multilabel" ? labels.join(say("between")) : labels[0];
}

// What a model that knows costs decides on, or "".
function decided({ answer }) {
  const { decision } = answer?.predictions[0] ?? {};
  return decision === undefined ? "" : say("decision", { answer: decision });
}

function draw(card) {
  const { item, body, answer, problem } = card;
  item.className = "card";
  item.classList.toggle("wrong", Boolean(problem));
  item.classList.toggle("waits", !problem && !answer);
  const text = headline(card);
  const title = element("h3", "answer", text);
  title.dir = "auto";
  title.title = text;
  if (problem?.foreign) title.lang = "en"; // the service speaks English alone
  const name = element("p", "name", card.name);
  name.dir = "auto";
  name.title = card.name;
  body.replaceChildren(title, name);
  if (decided(card)) {
    const line = element("p", "decision", decided(card));
    line.dir = "auto";
    title.after(line);
  }
  if (answer) {
    const { total, engine } = answer.milliseconds;
    const time = say("time", { total: total.toFixed(0), engine: engine.toFixed(0) });
    const which = models.length > 1 ? `${card.model.name} · ` : "";
    body.append(bars(answer.predictions[0]), ...explain(card), element("p", "times", which + time));
    mark(card);
  }
  if (problem?.passes) {
    const button = element("button", "second", say("again"));
    button.type = "button";
    button.addEventListener("click", () => { button.blur(); retry([card]); });
    body.append(button);
  }
}

function bars({ labels, scores }) {
  const list = element("ul", "bars");
  labels.forEach((label, place) => {
    const line = element("li");
    const bar = element("span", "bar");
    bar.setAttribute("aria-hidden", "true");
    const filled = element("i");
    filled.style.width = `${100 * scores[place]}%`;
    bar.append(filled);
    const named = element("span", "label", label);
    named.dir = "auto";
    named.title = label;
    line.append(named, element("span", "score", percent(scores[place])), bar);
    list.append(line);
  });
  return list;
}

// ------------------------------------------------------------------ where the model looked

// The button that shows a class's map over the photo, and what belongs to it; nothing without maps.
function explain(card) {
  const { answer, photo } = card;
  const { labels, maps, seen } = answer.predictions[0];
  if (!maps?.length || photo.classList.contains("none")) return [];
  const button = element("button", "second where", say("where"));
  button.type = "button";
  const legend = element("div", "legend");
  const show = (place) => {
    card.map = place;
    photo.querySelector("canvas")?.remove();
    button.setAttribute("aria-pressed", String(place !== null));
    legend.hidden = place === null;
    if (place === null) return;
    const strongest = paint(photo, card.picture, maps[place], seen);
    const scale = element("p", "scale");
    const colours = element("i");
    colours.setAttribute("aria-hidden", "true");
    const over = (colour, step) => colour.map((value) => MIDDLE + OPAQUE * (step / (COLOURS.length - 1)) * (value - MIDDLE));
    colours.style.background = `linear-gradient(90deg, ${COLOURS.map((one, step) => `rgb(${over(one, step)})`)})`;
    scale.append(say("little"), colours, say("much"));
    const cut = seen.some((edge, side) => (side < 2 ? edge > 0.01 : edge < 0.99));
    const lines = [strongest > 0 ? scale : element("p", "", say("nowhere"))];
    if (cut) lines.push(element("p", "", say("unseen")));
    const chosen = legend.contains(document.activeElement); // with the keyboard it goes on from there
    if (maps.length > 1) lines.unshift(choice(labels.slice(0, maps.length), place, show));
    legend.replaceChildren(...lines);
    if (chosen) legend.querySelector("select")?.focus();
  };
  button.addEventListener("click", () => {
    show(card.map === null ? 0 : null);
    if (card.map !== null) speak(say("mapSpoken", { answer: labels[card.map] }));
  });
  if (card.picture.complete) {
    show(card.map);
  } else {
    legend.hidden = true;
    card.picture.addEventListener("load", () => show(card.map), { once: true });
  }
  card.picture.addEventListener("error", () => { button.remove(); legend.remove(); }, { once: true });
  return [button, legend];
}

function choice(labels, place, show) {
  const label = element("label", "", `${say("whereClass")} `);
  const select = element("select");
  select.append(...labels.map((name, number) => new Option(name, number, false, number === place)));
  select.addEventListener("change", () => {
    show(Number(select.value));
    speak(say("mapSpoken", { answer: labels[Number(select.value)] }));
  });
  label.append(select);
  return label;
}

// From little to most; as in pictures of `ppcls predict --explain` (ppcls/report/heatmaps.py).
const COLOURS = [[20, 30, 90], [40, 85, 160], [95, 135, 165], [190, 180, 110], [255, 225, 60]];
const OPAQUE = 0.75; // of the last colour
const MIDDLE = 150; // grey of a photo, on which the scale shows the colours
const UNSEEN = 0.3; // how bright is what the model did not look at
const LONGEST = 960; // pixels of the drawn photo's longer side

// Draw a map over the photo, in grey; returns the strongest value.
function paint(photo, picture, map, [top, left, bottom, right]) {
  const canvas = element("canvas");
  const scale = Math.min(1, LONGEST / Math.max(picture.naturalWidth, picture.naturalHeight));
  const width = Math.max(1, Math.round(picture.naturalWidth * scale));
  const height = Math.max(1, Math.round(picture.naturalHeight * scale));
  Object.assign(canvas, { width, height });
  canvas.setAttribute("aria-hidden", "true");
  const pen = canvas.getContext("2d");
  pen.drawImage(picture, 0, 0, width, height);
  const image = pen.getImageData(0, 0, width, height);
  const most = Math.max(0, ...map.flat());
  const rows = between(height, top * height, bottom * height, map.length);
  const columns = between(width, left * width, right * width, map[0].length);
  const { data } = image;
  for (let y = 0, at = 0; y < height; y += 1) {
    const row = rows[y];
    for (let x = 0; x < width; x += 1, at += 4) {
      const column = columns[x];
      const grey = 0.299 * data[at] + 0.587 * data[at + 1] + 0.114 * data[at + 2];
      let share = 0;
      if (row.inside && column.inside && most > 0) {
        const upper = (1 - column.part) * map[row.low][column.low] + column.part * map[row.low][column.high];
        const lower = (1 - column.part) * map[row.high][column.low] + column.part * map[row.high][column.high];
        share = Math.min(1, Math.max(0, ((1 - row.part) * upper + row.part * lower) / most));
      }
      const place = share * (COLOURS.length - 1);
      const low = Math.min(Math.floor(place), COLOURS.length - 2);
      const bright = row.inside && column.inside ? 1 : UNSEEN;
      for (let channel = 0; channel < 3; channel += 1) {
        const colour = COLOURS[low][channel] + (place - low) * (COLOURS[low + 1][channel] - COLOURS[low][channel]);
        data[at + channel] = bright * (grey + OPAQUE * share * (colour - grey));
      }
    }
  }
  pen.putImageData(image, 0, 0);
  photo.append(canvas);
  return most;
}

// For each pixel, between which of `count` values that lie from start to end its middle is.
function between(pixels, start, end, count) {
  return Array.from({ length: pixels }, (_, pixel) => {
    const middle = pixel + 0.5;
    const place = Math.min(count - 1, Math.max(0, (middle - start) / (end - start) * count - 0.5));
    const low = Math.min(Math.floor(place), Math.max(count - 2, 0));
    return { low, high: Math.min(low + 1, count - 1), part: place - low, inside: middle >= start && middle <= end };
  });
}

function mark(card) {
  const found = doubt(card);
  card.item.classList.toggle("unsure", Boolean(found));
  card.body.querySelector(".badge")?.remove();
  if (found) card.body.prepend(element("p", "badge", say(found)));
}

function count() {
  const done = cards.filter((card) => card.answer || card.problem).length;
  const failed = cards.filter((card) => card.problem?.passes).length;
  const text = done < cards.length && cards.length > 1 ? "part" : cards.length === 1 ? "one" : "many";
  write($("count"), say(text, { done, count: cards.length }));
  $("again").hidden = failed < 2;
  write($("again"), say("againAll", { count: failed }));
  $("answers").hidden = !cards.length;
  document.body.classList.toggle("some", cards.length > 0);
}

// ------------------------------------------------------------------ predicting

function take(files, name) {
  $("note").hidden = true;
  const list = [...files];
  if (!list.length) {
    tell("nothing");
    return;
  }
  if (list.length > MOST) tell("tooMany", { most: MOST, count: list.length.toLocaleString(language) });
  const batch = { size: Math.min(list.length, MOST), left: Math.min(list.length, MOST), failed: 0 };
  const made = list.slice(0, MOST).map((file) => makeCard(file, name ?? (file.name || say("photo")), batch));
  cards.unshift(...made);
  $("results").prepend(...made.map((card) => card.item));
  made.forEach(draw);
  start(made);
}

function retry(some) {
  const batch = { size: some.length, left: some.length, failed: 0 };
  for (const card of some) {
    Object.assign(card, { batch, problem: null });
    draw(card);
  }
  start(some);
}

function start(some) {
  waiting.push(...some);
  count();
  next();
}

function next() {
  while (state !== "locked" && models.length && running < AT_ONCE && waiting.length) {
    running += 1;
    predict(waiting.shift()).finally(() => { running -= 1; next(); });
  }
}

async function predict(card) {
  card.model = current();
  try {
    card.answer = await ask(card);
  } catch (error) {
    if (card.stop.signal.aborted) return;
    if (error === lock) { // asked again once there is a key
      waiting.unshift(card);
      lock();
      return;
    }
    if (typeof error !== "function") throw error;
    card.problem = error;
  }
  draw(card);
  count();
  announce(card);
  if (card.problem?.lost || (card.answer && card.answer.version !== card.model.version)) look();
}

// The service's answer; throws what says why there is none: `passes`, whether a later try may help.
async function ask(card) {
  const most = limits.body;
  if (most && card.file.size > most - 4096) { // the form is around it
    const size = (card.file.size / 2 ** 20).toFixed(1);
    throw () => say("tooLarge", { size, most: Math.floor(most / 2 ** 20) });
  }
  const query = new URLSearchParams({ topk: CLASSES });
  if (models.length > 1) query.set("model", card.model.name);
  if (card.model.maps) query.set("explain", "true");
  const body = new FormData();
  body.append("image", card.file, card.name);
  for (let tries = 1; ; tries += 1) {
    const given = key;
    let answer;
    try {
      const options = { method: "POST", body, headers: headers(), signal: card.stop.signal };
      answer = await fetch(`/predict?${query}`, options);
    } catch (error) {
      throw await whyLost(card, error);
    }
    if (answer.status === 401 && key !== given) continue; // another has been given meanwhile
    if (answer.status === 401) throw lock;
    const again = Number(answer.headers.get("Retry-After"));
    if (answer.status === 503 && again && tries < TRIES) {
      await pause(Math.min(again, 5));
      continue;
    }
    const found = await answer.json().catch(() => ({}));
    if (answer.ok && found.predictions) return found;
    const problem = found.detail ? () => found.detail : () => say("odd", { status: answer.status });
    throw Object.assign(problem, { passes: answer.status >= 500, foreign: Boolean(found.detail) });
  }
}

async function whyLost(card, error) {
  if (card.stop.signal.aborted) return error;
  try {
    await card.file.slice(0, 1).arrayBuffer();
  } catch {
    return () => say("unreadable");
  }
  return Object.assign(() => say("unreachable"), { passes: true, lost: true });
}

function announce(card) {
  const { batch } = card;
  batch.left -= 1;
  batch.failed += card.problem ? 1 : 0;
  if (batch.size <= SPOKEN_EACH) {
    const found = doubt(card);
    const answer = headline(card);
    const told = [found ? say(`${found}Spoken`, { answer }) : answer, decided(card)];
    speak(say("spoken", { name: card.name, answer: told.filter(Boolean).join(say("between")) }));
  } else if (!batch.left) {
    speak(say(batch.failed ? "failedSpoken" : "allSpoken", { count: batch.size, failed: batch.failed }));
  }
}

// ------------------------------------------------------------------ where photos come from

$("choose").addEventListener("click", () => $("files").click());
for (const id of ["files", "capture"]) {
  $(id).addEventListener("change", () => { take($(id).files); $(id).value = ""; });
}

addEventListener("dragover", (event) => {
  event.preventDefault();
  $("drop").classList.toggle("over", event.dataTransfer.types.includes("Files"));
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) $("drop").classList.remove("over"); // out of the window
});
addEventListener("drop", async (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  // Entries are there only until the event is over.
  const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  const files = [...event.dataTransfer.files];
  if (!entries.some((entry) => entry.isDirectory)) {
    take(files);
    return;
  }
  const found = [];
  for (const entry of entries) await collect(entry, found);
  take(found);
});

// The files of a dropped folder, but for hidden ones.
async function collect(entry, found) {
  if (entry.name.startsWith(".")) return;
  if (entry.isFile) {
    await new Promise((done) => { entry.file((file) => { found.push(file); done(); }, done); });
    return;
  }
  const reader = entry.createReader();
  for (;;) { // it gives a hundred at a time
    const some = await new Promise((done) => { reader.readEntries(done, () => done([])); });
    if (!some.length) return;
    for (const one of some) await collect(one, found);
  }
}

addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files ?? [])];
  if (files.length) take(files, files.length === 1 ? say("pasted") : undefined);
});

let stream = null;
$("camera").addEventListener("click", async () => {
  $("note").hidden = true;
  if (!navigator.mediaDevices?.getUserMedia) {
    $("capture").click(); // a phone without https opens its camera for it
    return;
  }
  $("camera").disabled = true;
  try {
    const video = { facingMode: "environment", width: { ideal: 1920 } };
    stream = await navigator.mediaDevices.getUserMedia({ video });
  } catch (error) {
    const known = { NotAllowedError: "cameraRefused", NotFoundError: "noCamera" };
    tell(known[error.name] ?? "cameraFails", { why: error.message });
    return;
  } finally {
    $("camera").disabled = false;
  }
  $("take").disabled = true;
  $("video").srcObject = stream;
  $("camera-dialog").showModal();
});
$("video").addEventListener("playing", () => {
  $("take").disabled = false;
  $("take").focus();
});
$("take").addEventListener("click", () => {
  const video = $("video");
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  const time = new Date().toLocaleTimeString(document.documentElement.lang);
  canvas.toBlob((blob) => { if (blob) take([blob], `${say("photo")} ${time}`); }, "image/jpeg", 0.95);
  $("camera-dialog").close();
});
$("close-camera").addEventListener("click", () => $("camera-dialog").close());
$("camera-dialog").addEventListener("close", () => {
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
  $("video").srcObject = null;
  $("camera").focus();
});

// ------------------------------------------------------------------ settings

$("language").addEventListener("click", () => {
  language = language === "zh" ? "en" : "zh";
  keep(always, "language", language);
  translate();
});
$("model").addEventListener("change", () => {
  keep(always, "model", $("model").value);
  describe();
});
function showSure() {
  const text = percent($("sure").value / 100, 0);
  write($("sure-value"), text);
  $("sure").setAttribute("aria-valuetext", text);
}
$("sure").value = read(always, "sure", "50");
$("sure").addEventListener("input", () => {
  keep(always, "sure", $("sure").value);
  showSure();
  cards.forEach(mark);
});
$("again").addEventListener("click", () => retry(cards.filter((card) => card.problem?.passes)));
$("clear").addEventListener("click", () => {
  waiting.length = 0;
  for (const card of cards.splice(0)) {
    card.stop.abort();
    URL.revokeObjectURL(card.url);
    card.item.remove();
  }
  $("note").hidden = true;
  count();
  $("choose").focus();
});
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const given = $("key").value.trim();
  $("key").value = "";
  write($("key-wrong"), "");
  if (!/^[!-~]+$/.test(given)) { // a header cannot hold it
    write($("key-wrong"), say("wrongKey"));
    return;
  }
  key = given;
  open();
});
async function open() {
  await look();
  if (state !== "known") return;
  keep(inThisTab, "key", key);
  $("key-form").hidden = true;
  $("choose").focus();
}

async function copy(text, source) {
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(text);
    return;
  }
  // Without https there is no clipboard but what is selected.
  getSelection().selectAllChildren(source);
  document.execCommand("copy");
}
for (const button of document.querySelectorAll(".copy")) {
  button.addEventListener("click", async () => {
    const source = $(button.dataset.copy);
    await copy(source.textContent, source);
    write(button, say("copied"));
    speak(say("copied"));
    setTimeout(() => write(button, say("copy")), 1500);
  });
}

translate();
look();
