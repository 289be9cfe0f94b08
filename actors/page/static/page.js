// Asks the server this page came from: streams answers, then shows what they rest on. Nothing is sent elsewhere.
"use strict";

const MOST_BYTES = 44 * 2 ** 20; // the server takes 64 MiB, and base64 adds a third
const MOST_MODELS = 2;
const OPEN_QUESTIONS = [
  "How does the person feel, and how can you tell?",
  "Do the face and the voice show the same emotion? (A) Yes (B) No",
];
const USES = { mentioned: "in passing", set_aside: "set aside", denied: "said to be absent", supposed: "supposed" };
const MEDIA = { video: "◉ seen", audio: "♪ heard" };

const $ = (id) => document.getElementById(id);
const state = { clip: null, url: null, token: readToken(), models: [], running: null, choosing: 0 };

// ---- Talking to the server -------------------------------------------------------------------------------------

class Refusal extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

async function request(path, options = {}) {
  const headers = { ...options.headers, ...(state.token ? { Authorization: `Bearer ${state.token}` } : {}) };
  let reply;
  try {
    reply = await fetch(path, { ...options, headers, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal("The server does not answer. Is it still running?");
  }
  if (!reply.ok) throw await refusal(reply);
  return reply;
}

async function refusal(reply) {
  const error = await reply.json().then((body) => body?.error, () => null);
  const said = error?.message || "";
  const wait = Number(reply.headers.get("Retry-After")) || 0;
  const again = wait ? `Ask again in ${wait} s.` : "Ask again later.";
  const words = {
    401: state.token ? "The server does not accept this token." : "The server asks for a token.",
    413: `The clip is too large for this server. ${said}`,
    429: `That is more than this token may ask for at once. ${again}`,
    503: `The server is busy. ${again}`,
  };
  if (reply.status === 401) askForToken(words[401]);
  if (error?.code === "no_audio_stream") {
    return new Refusal("This clip has no sound, and the question is about picture and sound. Choose another.", reply.status);
  }
  const other = said || `The server answers with status ${reply.status}.`;
  return new Refusal(words[reply.status] || other, reply.status);
}

async function* streamed(body, signal) {
  const reply = await request("v1/chat/completions", {
    method: "POST", signal, body: JSON.stringify(body), headers: { "Content-Type": "application/json" },
  });
  if (!reply.body || !(reply.headers.get("Content-Type") || "").startsWith("text/event-stream")) {
    throw new Refusal("The server did not stream its answer. Is it another version?");
  }
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read().catch((error) => {
      throw error.name === "AbortError" ? error : new Refusal("The answer broke off: the connection was lost.");
    });
    if (done) throw new Refusal("The answer broke off before its end. Ask again.");
    const events = (rest + value).replaceAll("\r\n", "\n").split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const data = event.split("\n").filter((l) => l.startsWith("data:")).map((l) => l.slice(5).trim()).join("\n");
      if (data === "[DONE]") return;
      if (data) yield parsed(data);
    }
  }
}

function parsed(data) {
  let chunk;
  try {
    chunk = JSON.parse(data);
  } catch {
    throw new Refusal("The server sent something that is no answer.");
  }
  if (chunk.error) throw new Refusal(chunk.error.message || "The server failed while it answered.");
  const choice = chunk.choices?.[0];
  return { text: choice?.delta?.content || "", reason: choice?.finish_reason || "" };
}

async function insightOf(model, question, answer, signal) {
  const form = new FormData();
  for (const [name, value] of Object.entries({ model, question, answer, grounding: "true" })) form.append(name, value);
  form.append("clip", state.clip, state.clip.name || "clip.mp4");
  const reply = await request("v1/emotion", { method: "POST", body: form, signal });
  return reply.json();
}

// ---- Token -----------------------------------------------------------------------------------------------------

function readToken() {
  try {
    return sessionStorage.getItem("token") || "";
  } catch {
    return ""; // storage may be switched off
  }
}

function keepToken(token) {
  state.token = token;
  try {
    sessionStorage.setItem("token", token);
  } catch { /* then it is known until the page is left */ }
}

function askForToken(words) {
  $("token-words").textContent = words;
  $("token-form").hidden = false;
  $("token").focus();
}

// ---- Clip ------------------------------------------------------------------------------------------------------

function choose(file, title = file.name) {
  const wrong = fault(file);
  show($("clip-error"), wrong);
  if (wrong) return;
  if (state.url) URL.revokeObjectURL(state.url);
  state.clip = file;
  state.url = URL.createObjectURL(file);
  $("player").src = state.url;
  $("player").hidden = false;
  $("clip-name").textContent = `${title}, ${(file.size / 2 ** 20).toFixed(file.size < 2 ** 20 ? 2 : 1)} MiB`;
  for (const button of $("samples").querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(button.textContent === title));
  }
  ready();
}

function fault(file) {
  if (file.type && !/^(video|application\/(mp4|octet-stream))/.test(file.type)) {
    return `${file.name} is no video (${file.type}). Choose a clip with picture and sound.`;
  }
  if (!file.size) return `${file.name} is empty.`;
  return file.size > MOST_BYTES ? `${file.name} is larger than ${MOST_BYTES / 2 ** 20} MiB. Cut or re-encode it.` : "";
}

async function loadSamples() {
  const samples = await request("page/samples.json").then((r) => r.json()).catch(() => []);
  for (const sample of samples) {
    addButton($("samples"), sample.title, async () => {
      const turn = ++state.choosing;
      try {
        const media = await request(`page/samples/${sample.name}.mp4`).then((r) => r.blob());
        if (turn !== state.choosing) return; // another clip was chosen meanwhile
        choose(new File([media], `${sample.name}.mp4`, { type: "video/mp4" }), sample.title);
        suggest(sample.questions);
      } catch (error) {
        show($("clip-error"), error.message);
      }
    });
  }
  $("samples-part").hidden = !samples.length;
}

function dataUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(`data:${file.type || "video/mp4"};base64,${reader.result.split(",", 2)[1]}`);
    reader.onerror = () => reject(new Refusal("The clip cannot be read any more. Choose it again."));
    reader.readAsDataURL(file);
  });
}

// ---- Question and models ---------------------------------------------------------------------------------------

function suggest(questions) {
  $("suggestions").replaceChildren();
  for (const question of questions) {
    addButton($("suggestions"), question, () => {
      $("question").value = question;
      $("question").focus();
      ready();
    });
  }
  if (!$("question").value) $("question").value = questions[0];
  ready();
}

async function loadModels() {
  show($("ask-error"), "");
  $("retry").hidden = true;
  try {
    const list = await request("v1/models").then((r) => r.json());
    state.models = list.data.map((model) => model.id);
  } catch (error) {
    $("retry").hidden = error.status === 401;
    if (error.status !== 401) show($("ask-error"), error instanceof Refusal ? error.message : "It lists no models.");
    return;
  }
  $("token-form").hidden = true;
  const chosen = new Set([state.models[0], state.models.at(-1)]);
  $("models").replaceChildren(...state.models.map((id, at) => {
    const box = element("input", { type: "checkbox", value: id, checked: chosen.has(id) });
    box.addEventListener("change", ready);
    const label = element("label", { className: "check" }, box, element("span", { textContent: id }));
    if (at === 0 && state.models.length > 1) label.lastChild.append(element("span", { className: "note",
      textContent: " (base)" }));
    return element("li", {}, label);
  }));
  ready();
}

function chosenModels() {
  return [...$("models").querySelectorAll("input:checked")].map((box) => box.value);
}

function ready() {
  const models = chosenModels();
  for (const box of $("models").querySelectorAll("input")) box.disabled = !box.checked && models.length >= MOST_MODELS;
  const missing = !state.clip ? "Choose a clip first" : !$("question").value.trim() ? "Ask something first"
    : state.models.length && !models.length ? "Choose who answers first" : "";
  $("hint").textContent = missing || "Ctrl+Enter asks";
  $("hint").classList.toggle("needed", Boolean(missing));
  $("send").disabled = Boolean(state.running || missing) || !models.length;
}

// ---- Asking ----------------------------------------------------------------------------------------------------

async function ask(event) {
  event?.preventDefault();
  ready();
  if ($("send").disabled) return;
  const [models, question, run] = [chosenModels(), $("question").value.trim(), new AbortController()];
  running(run);
  show($("ask-error"), "");
  const cards = models.map(makeCard);
  $("answers").replaceChildren(...cards.map((card) => card.root));
  $("answers").scrollIntoView({ block: "nearest" });
  try {
    const video = await dataUrl(state.clip);
    const inTurn = queue(); // what answers rest on is asked one after the other: an engine is slow with two at once
    await Promise.all(cards.map((card) => answerInto(card, question, video, run.signal, inTurn)));
    drawGrounding(cards);
  } catch (error) {
    show($("ask-error"), error.message);
  } finally {
    running(null);
  }
}

function running(run) {
  state.running = run;
  $("stop").hidden = !run;
  ready();
}

async function answerInto(card, question, video, signal, inTurn) {
  const content = [{ type: "video_url", video_url: { url: video } }, { type: "text", text: question }];
  const body = { model: card.model, messages: [{ role: "user", content }], stream: true, temperature: 0,
    mm_processor_kwargs: { use_audio_in_video: true } };
  try {
    card.said.setAttribute("aria-busy", "true");
    card.status.textContent = "Watching and listening …";
    for await (const { text, reason } of streamed(body, signal)) {
      card.status.textContent = "Answering …";
      card.said.append(card.said.textContent ? text : text.trimStart());
      if (reason === "length") show(card.part(".cut"), "Cut off here: the server lets no answer be longer.");
    }
    card.said.setAttribute("aria-busy", "false");
    if (!card.said.textContent.trim()) card.status.textContent = "It answered with nothing.";
    else if ($("explain").checked) await inTurn(() => explain(card, question, signal));
    else card.status.textContent = "";
  } catch (error) {
    card.status.textContent = error.name === "AbortError" ? "Stopped." : "";
    if (error.name !== "AbortError") show(card.error, error instanceof Refusal ? error.message : String(error));
  } finally {
    card.said.setAttribute("aria-busy", "false");
  }
}

async function explain(card, question, signal) {
  card.status.textContent = "Asking what the answer rests on …";
  try {
    card.insight = await insightOf(card.model, question, card.said.textContent, signal);
  } catch (error) {
    if (error.status !== 404) throw error;
    card.status.textContent = "This server does not tell what its answers rest on.";
    return;
  }
  card.status.textContent = "";
  drawInsight(card);
}

// ---- Drawing ---------------------------------------------------------------------------------------------------

function makeCard(model) {
  const root = $("answer-template").content.firstElementChild.cloneNode(true);
  const part = (name) => root.querySelector(name);
  part(".model").textContent = model;
  const kind = state.models.length < 2 ? "" : model === state.models[0] ? "base" : "tuned";
  part(".kind").textContent = kind;
  return { model, root, part, status: part(".status"), said: part(".said"), error: part(".error"), insight: null };
}

function drawInsight(card) {
  const { answer, emotion, cues, agreement, cost } = card.insight;
  card.said.setAttribute("aria-live", "off"); // its words have been read out
  card.said.replaceChildren(...marked(answer, cues));
  card.part(".cues tbody").replaceChildren(...cues.map(cueRow));
  card.part(".cues").hidden = !cues.length;
  card.part(".no-cues").hidden = Boolean(cues.length);
  card.part(".agreement").replaceChildren(
    ...(emotion ? ["It names ", element("strong", { textContent: emotion }), ". "] : ["It names no emotion. "]),
    agreement ? `Alone, the face shows ${agreement.face} and the voice ${agreement.voice}: they ` +
      `${agreement.agree ? "agree" : "disagree"} (${percent(agreement.confidence)} sure).` : "");
  card.part(".cost").textContent = `${cost.passes} passes, ${cost.tokens.toLocaleString("en")} tokens`;
  card.part(".grounding-part").hidden = true; // until every card is there, since all share one scale
  card.part(".insight").hidden = false;
}

function marked(answer, cues) {
  const letters = Array.from(answer); // spans count characters, not UTF-16 units
  const [parts, text] = [[], (begin, end) => letters.slice(begin, end).join("")];
  let at = 0;
  for (const cue of [...cues].sort((a, b) => a.span[0] - b.span[0])) {
    const away = cue.use && cue.use !== "relied_on" ? " away" : "";
    const title = `${cue.modality === "audio" ? "heard" : "seen"}${USES[cue.use] ? `, ${USES[cue.use]}` : ""}`;
    parts.push(text(at, cue.span[0]),
      element("mark", { className: `cue ${cue.modality}${away}`, textContent: text(...cue.span), title }));
    at = cue.span[1];
  }
  return [...parts, text(at)];
}

function cueRow(cue) {
  const use = USES[cue.use] ? element("span", { className: "note", textContent: ` ${USES[cue.use]}` }) : "";
  const there = cue.confidence >= 0.5;
  const doubted = cue.use === "denied" ? there : !there && (!cue.use || cue.use === "relied_on");
  return element("tr", {},
    element("td", { className: `medium ${cue.modality}`, textContent: MEDIA[cue.modality] }),
    element("td", {}, cue.text, use),
    element("td", { className: doubted ? "doubted" : "", textContent: percent(cue.confidence) + (doubted ? " ?" : "") }));
}

function drawGrounding(cards) {
  const shown = cards.filter((card) => card.insight?.grounding);
  const rows = shown.map((card) => groundingRows(card.insight.grounding));
  const most = Math.max(1e-9, ...rows.flat().map((row) => row.lost));
  shown.forEach((card, i) => {
    card.part(".grounding tbody").replaceChildren(...rows[i].map((row) => barRow(row, most)));
    card.part(".grounding-part").hidden = false;
  });
}

function groundingRows(grounding) {
  const rows = [];
  for (const [medium, name] of [["video", "picture"], ["audio", "sound"]]) {
    for (const how of ["removed", "swapped"]) {
      const lost = grounding[medium][how];
      if (typeof lost === "number") rows.push({ label: `${name} ${how}`, medium, how, lost });
    }
  }
  return [...rows, { label: "no clip at all", medium: "", how: "", lost: grounding.text_only }];
}

function barRow({ label, medium, how, lost }, most) {
  const fill = element("i", { className: `${medium} ${how}` });
  fill.style.width = `${(100 * Math.max(0, lost)) / most}%`;
  return element("tr", {}, element("th", { scope: "row", textContent: label }),
    element("td", { ariaHidden: "true" }, element("span", { className: "bar" }, fill)),
    element("td", { textContent: lost.toFixed(1).replace("-", "−") }));
}

// ---- Small things ----------------------------------------------------------------------------------------------

function element(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function addButton(list, text, act) {
  const button = element("button", { type: "button", textContent: text });
  button.addEventListener("click", act);
  list.append(element("li", {}, button));
}

function queue() {
  let last = Promise.resolve();
  return (act) => {
    const mine = last.then(act);
    last = mine.catch(() => {});
    return mine;
  };
}

function percent(share) {
  return `${Math.round(100 * share)} %`;
}

function show(place, words) {
  place.textContent = words;
  place.hidden = !words;
}

function carriesFiles(event) {
  return [...(event.dataTransfer?.types || [])].includes("Files");
}

function wire() {
  $("ask").addEventListener("submit", ask);
  $("stop").addEventListener("click", () => state.running?.abort());
  $("retry").addEventListener("click", loadModels);
  $("question").addEventListener("input", ready);
  $("question").addEventListener("keydown", (e) => e.key === "Enter" && (e.ctrlKey || e.metaKey) && ask(e));
  const take = (file) => { if (file) { state.choosing += 1; choose(file); suggest(OPEN_QUESTIONS); } };
  $("file").addEventListener("change", (e) => { take(e.target.files[0]); e.target.value = ""; });
  $("player").addEventListener("error", () => $("player").src &&
    show($("clip-error"), "Your browser cannot play this file. It can be asked about all the same."));
  $("token-form").addEventListener("submit", (e) => { e.preventDefault(); keepToken($("token").value.trim()); loadModels(); });
  addEventListener("dragover", (e) => { if (carriesFiles(e)) { e.preventDefault(); $("drop").classList.add("over"); } });
  addEventListener("dragleave", (e) => !e.relatedTarget && $("drop").classList.remove("over"));
  addEventListener("drop", (e) => {
    if (!carriesFiles(e)) return;
    e.preventDefault();
    $("drop").classList.remove("over");
    take(e.dataTransfer.files[0]);
  });
}

wire();
suggest(OPEN_QUESTIONS);
loadSamples();
loadModels();
