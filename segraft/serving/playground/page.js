"use strict";
const $ = (id) => document.getElementById(id);
const facts = JSON.parse($("facts").textContent);
const MOST_DRAWN = 4e6; // pixels of the overlay: phones refuse much larger canvases
const RAMP = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]]; // viridis
const state = { file: null, found: null, hidden: new Set(), marked: -1, at: null, asking: null, sampled: 0 };

/* ---------- the server: KServe's V2 protocol, an image file in, PNGs and a table out, all in binary ---------- */

async function ask(file, signal) {
  const size = file.size + 4;
  const head = new TextEncoder().encode(JSON.stringify({
    inputs: [{ name: "image", shape: [1], datatype: "BYTES", parameters: { binary_data_size: size } }],
    outputs: [{ name: "mask" }, { name: "confidence" }, { name: "area" }],
    parameters: { binary_data_output: true },
  }));
  const length = new DataView(new ArrayBuffer(4));
  length.setUint32(0, file.size, true);
  const started = performance.now();
  const response = await fetch(`v2/models/${facts.name}/infer`, {
    method: "POST", signal, body: new Blob([head, length.buffer, file]),
    headers: { "Content-Type": "application/octet-stream", "Inference-Header-Content-Length": String(head.length) },
  }).catch((error) => { throw signal.aborted ? error : new Refused("The server does not answer.", true); });
  const body = await response.arrayBuffer();
  const trip = performance.now() - started;
  if (!response.ok) throw new Refused(sentence(body, response.status), response.status >= 500);
  const files = split(body, Number(response.headers.get("Inference-Header-Content-Length")));
  const times = Object.fromEntries([...(response.headers.get("Server-Timing") || "").matchAll(/(\w+);dur=([\d.]+)/g)]
    .map((match) => [match[1], Number(match[2])]));
  return { files, times: { ...times, trip }, model: response.headers.get("X-Segraft-Model") || "" };
}

class Refused extends Error {
  constructor(message, temporary) {
    super(message);
    this.temporary = temporary; // the same image may be answered later
  }
}

function sentence(body, status) {
  try { return JSON.parse(new TextDecoder().decode(body)).error; } catch { return `HTTP ${status}`; }
}

function split(body, at) {
  const files = {};
  for (const output of JSON.parse(new TextDecoder().decode(body.slice(0, at))).outputs) {
    const end = at + output.parameters.binary_data_size;
    files[output.name] = new Uint8Array(body.slice(at + 4, end)); // one file, after its length
    at = end;
  }
  return files;
}

/* ---------- exact values of an 8-bit palette or grey PNG: a canvas may alter them, and colours may repeat ---------- */

async function values(png) {
  const view = new DataView(png.buffer, png.byteOffset, png.byteLength);
  const width = view.getUint32(16), height = view.getUint32(20), packed = [];
  for (let at = 8; at < png.length; at += 12 + view.getUint32(at)) {
    if (view.getUint32(at + 4) === 0x49444154) packed.push(png.subarray(at + 8, at + 8 + view.getUint32(at))); // IDAT
  }
  const stream = new Blob(packed).stream().pipeThrough(new DecompressionStream("deflate"));
  const raw = new Uint8Array(await new Response(stream).arrayBuffer());
  const data = new Uint8Array(width * height);
  for (let y = 0; y < height; y++) unfilter(raw, y * (width + 1), data, y * width, width, y > 0);
  return { width, height, data };
}

function unfilter(raw, from, data, to, width, below) { // PNG specification, section 9
  const filter = raw[from];
  for (let x = 0; x < width; x++) {
    const a = x ? data[to + x - 1] : 0, b = below ? data[to + x - width] : 0, c = x && below ? data[to + x - width - 1] : 0;
    const guess = filter === 0 ? 0 : filter === 1 ? a : filter === 2 ? b : filter === 3 ? (a + b) >> 1 : paeth(a, b, c);
    data[to + x] = raw[from + 1 + x] + guess;
  }
}

function paeth(a, b, c) {
  const pa = Math.abs(b - c), pb = Math.abs(a - c), pc = Math.abs(a + b - 2 * c);
  return pa <= pb && pa <= pc ? a : pb <= pc ? b : c;
}

/* ---------- answers lie as the file stores its pixels; the browser shows a photo upright ---------- */

const TURNED = { // 1 × 2 pixels, to be turned by 90°: not every browser follows EXIF in every format
  png: "iVBORw0KGgoAAAANSUhEUgAAAAEAAAACCAAAAAC86un7AAAAGmVYSWZNTQAqAAAACAABARIAAwAAAAEABgAAAAAAANZnS2kAAAAMSURBVHicY2BgYAAAAAQAAfYXOFUAAAAASUVORK5CYII=",
  webp: "UklGRlgAAABXRUJQVlA4WAoAAAAIAAAAAAAAAQAAVlA4IBgAAAAwAQCdASoBAAIAAUAmJaQAA3AA/v02aABFWElGGgAAAE1NACoAAAAIAAEBEgADAAAAAQAGAAAAAAAA",
};

async function orientation(file) {
  const view = new DataView(await file.arrayBuffer());
  if (view.byteLength < 16) return 1;
  if (view.getUint16(0) === 0xffd8) return jpegOrientation(view);
  const png = view.getUint32(0) === 0x89504e47, webp = view.getUint32(8) === 0x57454250;
  if (!png && !webp) return 1;
  const found = png ? chunkOrientation(view, 8, 4, 0x65584966) : chunkOrientation(view, 12, 0, 0x45584946); // eXIf, EXIF
  return found === 1 || await turns(png ? "png" : "webp") ? found : 1;
}

async function turns(kind) {
  const image = new Image();
  image.src = `data:image/${kind};base64,${TURNED[kind]}`;
  await image.decode();
  return image.naturalWidth > image.naturalHeight;
}

function chunkOrientation(view, first, after, name) { // PNG: length, name, data, checksum; WebP: name, length, data, even
  for (let at = first; at + 24 < view.byteLength;) {
    const length = after ? view.getUint32(at) : view.getUint32(at + 4, true);
    if (view.getUint32(at + after) === name) return tag(view, at + (view.getUint32(at + 8) === 0x45786966 ? 14 : 8));
    at += after ? 12 + length : 8 + length + length % 2;
  }
  return 1;
}

function jpegOrientation(view) {
  for (let at = 2; at + 20 < view.byteLength && view.getUint8(at) === 0xff; at += 2 + view.getUint16(at + 2)) {
    if (view.getUint16(at) === 0xffe1 && view.getUint32(at + 4) === 0x45786966) return tag(view, at + 10); // Exif
    if (view.getUint16(at) === 0xffda) break;
  }
  return 1;
}

function tag(view, tiff) {
  const little = view.getUint16(tiff) === 0x4949;
  const first = tiff + view.getUint32(tiff + 4, little);
  for (let i = 0; first + 12 * i + 12 < view.byteLength && i < view.getUint16(first, little); i++) {
    const at = first + 2 + 12 * i;
    const found = view.getUint16(at + 8, little);
    if (view.getUint16(at, little) === 0x0112) return found >= 1 && found <= 8 ? found : 1;
  }
  return 1;
}

function upright({ width, height, data }, turn) {
  if (turn === 1) return { width, height, data };
  const swap = turn > 4, w = swap ? height : width, h = swap ? width : height;
  const flipX = [2, 3, 6, 7].includes(turn), flipY = [3, 4, 7, 8].includes(turn);
  const turned = new Uint8Array(w * h);
  for (let y = 0, to = 0; y < h; y++) {
    for (let x = 0; x < w; x++, to++) {
      const u = flipX ? w - 1 - x : x, v = flipY ? h - 1 - y : y;
      turned[to] = data[swap ? u * width + v : v * width + u];
    }
  }
  return { width: w, height: h, data: turned };
}

/* ---------- one image, from file to result ---------- */

async function sample() { // each click shows another one
  const number = state.sampled++;
  try {
    const response = await fetch(`sample?n=${number}`);
    if (!response.ok) throw new Refused(sentence(await response.arrayBuffer(), response.status), true);
    open(new File([await response.blob()], `sample-${number + 1}.jpg`));
  } catch (error) {
    complain(error instanceof Refused ? error.message : "The server does not answer.", false);
  }
}

async function open(file) {
  state.asking?.abort();
  const asking = (state.asking = new AbortController());
  Object.assign(state, { file, found: null, at: null });
  show(file);
  say(`Segmenting ${file.name || "the image"} …`);
  try {
    const [answer, turn] = await Promise.all([ask(file, asking.signal), orientation(file)]);
    const [ids, confidence] = await Promise.all([values(answer.files.mask), values(answer.files.confidence)]);
    if (asking.signal.aborted) return;
    const area = JSON.parse(new TextDecoder().decode(answer.files.area));
    const mean = confidence.data.reduce((sum, value) => sum + value, 0) / confidence.data.length / 255;
    state.found = { ids: upright(ids, turn), confidence: upright(confidence, turn), mean, area, ...answer };
    finish();
  } catch (error) {
    if (error.name === "AbortError") return;
    complain(error instanceof Refused ? error.message : String(error), error.temporary);
  }
}

function show(file) {
  URL.revokeObjectURL($("picture").src);
  $("picture").src = URL.createObjectURL(file);
  $("picture").alt = `The image you chose: ${file.name || "pasted"}`;
  $("named").textContent = file.name || "pasted image";
  $("choose").textContent = "Choose another";
  $("stage").classList.add("filled");
  $("view").classList.add("busy");
  for (const id of ["error", "cursor", "readout", "save", "times", "empty", "keys"]) $(id).hidden = true;
  $("overlay").width = 0;
  $("view").hidden = false;
}

function finish() {
  const { ids, area, times, model, files } = state.found;
  $("view").classList.remove("busy");
  $("named").textContent = `${ids.width} × ${ids.height} · ${state.file.name || "pasted image"}`;
  $("predict").textContent = milliseconds(times.predict);
  $("total").textContent = milliseconds(times.total);
  $("trip").textContent = milliseconds(times.trip);
  const [version, digest] = model.split(";sha256=");
  $("version").textContent = version;
  $("digest").textContent = (digest || "").slice(0, 12);
  URL.revokeObjectURL($("save").href);
  $("save").href = URL.createObjectURL(new Blob([files.mask], { type: "image/png" }));
  $("save").download = `${(state.file.name || "pasted").replace(/\.[^.]*$/, "")}.mask.png`;
  for (const id of ["save", "times", "keys"]) $(id).hidden = false;
  legend();
  draw();
  const top = [...area.classes].sort((a, b) => b.share - a.share).slice(0, 3).filter((c) => c.pixels);
  say(`Done in ${milliseconds(times.trip)}: mostly ${top.map((c) => `${c.class} ${percent(c.share)}`).join(", ")}.`);
}

const milliseconds = (time) => (time === undefined ? "–" : time < 9.95 ? `${time.toFixed(1)} ms` : time < 9950 ? `${Math.round(time)} ms` : `${(time / 1000).toFixed(1)} s`);
const percent = (share) => (share > 0 && share < 0.001 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`);

function say(text) {
  $("status").textContent = text;
}

function complain(text, temporary) {
  $("view").classList.remove("busy");
  $("stage").classList.remove("filled");
  $("again").hidden = !temporary;
  $("ramp").hidden = true;
  $("view").hidden = true;
  $("empty").hidden = false;
  $("sentence").textContent = text;
  $("error").hidden = false;
  say("");
  legend();
}

/* ---------- what is shown ---------- */

function draw() {
  if (!state.found) return;
  const { ids, confidence } = state.found, unsure = chosenView() === "confidence";
  const step = Math.max(1, Math.ceil(Math.sqrt((ids.width * ids.height) / MOST_DRAWN)));
  const width = Math.ceil(ids.width / step), height = Math.ceil(ids.height / step);
  const picture = new ImageData(width, height), pixels = new Uint32Array(picture.data.buffer);
  const opaque = facts.classes.map((_, id) => (state.hidden.has(id) ? 0 : state.marked < 0 || state.marked === id ? 255 : 40));
  const colors = unsure ? ramp() : facts.classes.map((c) => c.color);
  const table = colors.map(([r, g, b]) => (b << 16) | (g << 8) | r);
  for (let y = 0, to = 0; y < height; y++) {
    for (let x = 0; x < width; x++, to++) {
      const from = y * step * ids.width + x * step, id = ids.data[from];
      pixels[to] = (opaque[id] << 24) | table[unsure ? confidence.data[from] : id];
    }
  }
  Object.assign($("overlay"), { width, height });
  $("overlay").getContext("2d").putImageData(picture, 0, 0);
  $("overlay").style.opacity = $("opacity").value / 100;
  $("ramp").hidden = !unsure;
  $("mean").textContent = `mean ${percent(state.found.mean)}`;
}

function ramp() {
  return Array.from({ length: 256 }, (_, value) => {
    const place = (value / 255) * (RAMP.length - 1), low = Math.min(RAMP.length - 2, Math.floor(place)), part = place - low;
    return RAMP[low].map((channel, i) => Math.round(channel + part * (RAMP[low + 1][i] - channel)));
  });
}

const chosenView = () => document.querySelector("input[name=view]:checked").value;

function legend() {
  const shares = facts.classes.map((c, id) => ({ id, ...c, share: state.found?.area.classes[id].share }));
  if (state.found) shares.sort((a, b) => b.share - a.share || a.id - b.id);
  const largest = Math.max(...shares.map((c) => c.share || 0), 1e-9);
  $("classes").replaceChildren(...shares.map((c) => entry(c, largest)));
}

function entry({ id, name, color, share }, largest) {
  const item = document.createElement("li");
  const label = item.appendChild(document.createElement("label"));
  const box = Object.assign(document.createElement("input"), { type: "checkbox", checked: !state.hidden.has(id) });
  const part = (of, text = "") => Object.assign(document.createElement("span"), { className: of, textContent: text });
  const swatch = part("swatch"), track = part("track"), filled = track.appendChild(document.createElement("i"));
  swatch.style.background = `rgb(${color})`;
  filled.style.width = `${(100 * (share || 0)) / largest}%`;
  label.append(box, swatch, part("name", name));
  if (share !== undefined) label.append(part("share", percent(share)), track);
  label.classList.toggle("absent", share === 0);
  box.addEventListener("change", () => { box.checked ? state.hidden.delete(id) : state.hidden.add(id); draw(); });
  label.addEventListener("pointerenter", (event) => { if (event.pointerType === "mouse") { state.marked = id; draw(); } });
  label.addEventListener("pointerleave", () => { if (state.marked >= 0) { state.marked = -1; draw(); } });
  return item;
}

/* ---------- one pixel ---------- */

function inspect(x, y, pinned) {
  const { ids, confidence } = state.found, at = y * ids.width + x;
  const { name, color } = facts.classes[ids.data[at]], sure = `${Math.round(confidence.data[at] / 2.55)} % sure`;
  $("keys").hidden = true;
  $("readout").hidden = false;
  $("swatch").style.background = `rgb(${color})`;
  $("what").textContent = name;
  $("sure").textContent = sure;
  $("where").textContent = `x ${x}, y ${y}`;
  if (!pinned) return;
  state.at = { x, y };
  $("cursor").hidden = false;
  $("cursor").style.left = `${(100 * (x + 0.5)) / ids.width}%`;
  $("cursor").style.top = `${(100 * (y + 0.5)) / ids.height}%`;
  clearTimeout(inspect.later); // a held arrow key is announced once, when it rests
  inspect.later = setTimeout(() => { $("said").textContent = `${name}, ${sure}, x ${x}, y ${y}`; }, 200);
}

function pointed(event, pinned) {
  if (!state.found) return;
  const box = $("picture").getBoundingClientRect(), { width, height } = state.found.ids;
  const along = (part, length) => Math.min(length - 1, Math.max(0, Math.floor(part * length)));
  inspect(along((event.clientX - box.left) / box.width, width), along((event.clientY - box.top) / box.height, height), pinned);
}

function moved(event) {
  const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1], Enter: [0, 0] }[event.key];
  if (!move || !state.found) return;
  event.preventDefault();
  const { width, height } = state.found.ids, step = event.shiftKey ? 10 : 1;
  const { x, y } = state.at || { x: width >> 1, y: height >> 1 };
  const within = (value, length) => Math.min(length - 1, Math.max(0, value));
  inspect(within(x + step * move[0], width), within(y + step * move[1], height), true);
}

/* ---------- ways in ---------- */

const first = (files) => { if (files?.length) open(files[0]); };
$("choose").addEventListener("click", () => { $("file").value = ""; $("file").click(); });
$("sample").addEventListener("click", sample);
$("empty").addEventListener("click", () => $("choose").click());
$("picture").addEventListener("load", () => { // as wide as there is room, and never higher than the window
  $("view").style.width = `min(100%, ${(74 * $("picture").naturalWidth) / $("picture").naturalHeight}vh)`;
});
$("file").addEventListener("change", () => { first($("file").files); });
$("again").addEventListener("click", () => open(state.file));
document.addEventListener("paste", (event) => first(event.clipboardData.files));
document.addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("over"); });
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("over"); });
document.addEventListener("drop", (event) => { event.preventDefault(); document.body.classList.remove("over"); first(event.dataTransfer.files); });
$("view").addEventListener("pointermove", (event) => { if (event.pointerType === "mouse") pointed(event, false); });
$("view").addEventListener("pointerleave", () => { if (state.at) inspect(state.at.x, state.at.y, false); });
$("view").addEventListener("click", (event) => pointed(event, true));
$("view").addEventListener("keydown", moved);
$("opacity").addEventListener("input", () => { $("percent").textContent = `${$("opacity").value} %`; $("overlay").style.opacity = $("opacity").value / 100; });
for (const radio of document.querySelectorAll("input[name=view]")) radio.addEventListener("change", draw);
for (const [id, hidden] of [["every", []], ["none", facts.classes.keys()]]) {
  $(id).addEventListener("click", () => { state.hidden = new Set(hidden); legend(); draw(); });
}
legend();
