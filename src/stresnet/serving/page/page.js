// The page of the service: ask about a video, follow the job, and show what was found.

const find = (id) => document.getElementById(id);
const COLORS = ["#9db7f5", "#f5a3b1", "#8ad0a4", "#e6d27a", "#8fd8ea", "#d9a6d6", "#c9cdd8", "#f2c078", "#b5a8f0", "#c3b08c"];
const TOP = 5;
const PICTURE_MS = 40;

class Stopped extends Error {}

let cancel = () => {}; // ends the work in progress
let token = "";
let waiting = null; // what to do once there is a token
let shown = null; // {result, job} on the page

// Asking the service

function headers() {
  return token ? { Authorization: `Bearer ${token}` } : {};
}

async function refuse(response) {
  let detail = `${response.status} ${response.statusText}`;
  try {
    detail = (await response.json()).detail;
  } catch {
    // it was not this service that answered
  }
  return Object.assign(new Error(detail), { status: response.status });
}

async function ask(path, options = {}) {
  const response = await fetch(path, { ...options, headers: headers() });
  if (!response.ok) throw await refuse(response);
  return response;
}

// fetch does not tell how much of an upload is sent.
function upload(video, name, query, onSent) {
  const request = new XMLHttpRequest();
  const form = new FormData();
  form.append("video", video, name);
  const answered = new Promise((resolve, reject) => {
    request.onload = () => {
      const answer = JSON.parse(request.responseText || "{}");
      if (request.status === 202) resolve(answer);
      else reject(Object.assign(new Error(answer.detail || `status ${request.status}`), { status: request.status }));
    };
    request.onerror = () => reject(new Error("The service cannot be reached. Try again."));
    request.onabort = () => reject(new Stopped());
  });
  request.upload.onprogress = (event) => onSent(event.loaded, event.total);
  request.open("POST", `v1/predict?${query}`);
  for (const [key, value] of Object.entries({ ...headers(), Prefer: "respond-async" })) request.setRequestHeader(key, value);
  request.send(form);
  cancel = () => request.abort();
  return answered;
}

// EventSource cannot carry a token.
async function* states(job) {
  const response = await ask(`v1/jobs/${job}/events`);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    const events = text.split("\n\n");
    text = events.pop();
    for (const event of events) {
      const data = event.split("\n").find((line) => line.startsWith("data: "));
      if (data) yield JSON.parse(data.slice(6));
    }
  }
}

async function recognise(video, name) {
  const query = new URLSearchParams({ timeline: "true", top: TOP });
  for (const id of ["model", "from", "to"]) if (find(id).value.trim()) query.set(id, find(id).value.trim());
  let job = null;
  begin();
  try {
    progress("Uploading", 0, 1);
    ({ id: job } = await upload(video, name, query, (sent, total) => progress("Uploading", sent, total)));
    cancel = () => ask(`v1/jobs/${job}`, { method: "DELETE" });
    let last = null;
    for await (last of states(job)) if (last.progress) progress(last.progress.activity, last.progress.done, last.progress.total);
    if (last?.state === "done") show(last.result, job, video);
    else if (last?.state === "cancelled") throw new Stopped();
    else throw new Error(last?.problem?.detail ?? "The service ended. Try again.");
  } catch (error) {
    if (error.status === 401) askForToken(() => recognise(video, name));
    else {
      if (!(error instanceof Stopped)) complain(error.message);
      find("file").focus();
    }
  } finally {
    find("work").hidden = true;
  }
}

// Progress and problems

function begin() {
  closeCamera();
  find("problem").hidden = find("result").hidden = true;
  find("work").hidden = false;
  find("cancel").focus();
}

function progress(activity, done, total) {
  const name = activity[0].toUpperCase() + activity.slice(1);
  if (find("activity").textContent !== `${name} …`) find("activity").textContent = `${name} …`; // said once
  const bar = find("bar");
  if (total) [bar.max, bar.value] = [total, done];
  else bar.removeAttribute("value");
}

function complain(sentence) {
  find("problem").textContent = sentence;
  find("problem").hidden = false;
}

function askForToken(then) {
  waiting = then;
  find("access").hidden = false;
  if (token) complain("The token is not the one of this service.");
  find("token").focus();
}

// Results

function element(tag, text = "", attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;

function time(seconds) {
  const tenths = Math.round(10 * seconds);
  return `${Math.floor(tenths / 600)}:${((tenths % 600) / 10).toFixed(1).padStart(4, "0")}`;
}

function show(result, job, video) {
  shown = { result, job };
  find("label").textContent = `${result.label}, ${percent(result.probability)}`;
  const flow = result.flow ? `, flow by ${result.flow}` : "";
  const damaged = result.truncated ? "; damaged, the rest could not be decoded" : "";
  find("about").textContent = `${result.video}: ${result.frames} frames, model ${result.model}${flow}${damaged}`;
  showStreams(result);
  showTimeline(result.timeline);
  const player = find("video");
  URL.revokeObjectURL(player.src);
  find("unplayable").hidden = true;
  player.parentElement.hidden = false;
  player.src = URL.createObjectURL(video);
  find("result").hidden = false;
  find("result").focus();
}

function showStreams(result) {
  const lists = [["Both streams", result.top], ["Appearance", result.streams.appearance], ["Motion", result.streams.motion]];
  const given = lists.filter(([, actions]) => actions);
  const alone = given.length === 2; // a single stream is what both are
  find("streams").replaceChildren(...given.slice(alone ? 1 : 0).map(([name, actions]) => {
    const box = element("section");
    const list = element("ol");
    for (const { label, probability } of actions) {
      const item = element("li");
      const share = element("div", "", { class: "share" });
      share.append(element("div"));
      share.firstChild.style.width = `${100 * probability}%`;
      item.append(element("span", label), element("span", percent(probability)), share);
      list.append(item);
    }
    box.append(element("h4", name), list);
    return box;
  }));
}

function showTimeline({ duration, segments }) {
  const colors = new Map();
  for (const { label } of segments) if (!colors.has(label)) colors.set(label, COLORS[colors.size % COLORS.length]);
  const start = offset();
  const buttons = segments.map((segment) => {
    const name = `${segment.label}, ${time(segment.start)} to ${time(segment.end)}, ${percent(segment.score)}`;
    const button = element("button", segment.label, { type: "button", title: name, "aria-label": name });
    button.style.left = `${(100 * segment.start) / duration}%`;
    button.style.width = `${(100 * (segment.end - segment.start)) / duration}%`;
    button.style.background = colors.get(segment.label);
    button.addEventListener("click", () => {
      find("video").currentTime = start + segment.start;
      running(segment.start);
    });
    return button;
  });
  const head = element("div", "", { class: "head" });
  find("timeline").replaceChildren(...buttons, head);
  find("clock").replaceChildren(element("span", time(0)), element("span", time(duration)));
  running(0);
}

// Where the part that was asked for begins in the whole video that is shown
function offset() {
  return find("from").value.trim().replace(",", ".").split(":").reduce((sum, part) => 60 * sum + (Number(part) || 0), 0);
}

function running(seconds) {
  const { duration, segments } = shown.result.timeline;
  const now = segments.find((one) => one.start <= seconds && seconds < one.end);
  find("running").textContent = now ? `${time(seconds)} ${now.label}` : time(seconds);
  find("timeline").querySelector(".head").style.left = `${Math.min(100, (100 * Math.max(0, seconds)) / duration)}%`;
}

async function save(blob, name) {
  const link = element("a", "", { download: name, href: URL.createObjectURL(blob) });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// Camera

let stream = null;
let recorder = null;
let socket = null;

async function openCamera() {
  find("problem").hidden = true;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 480 }, height: { ideal: 360 } }, audio: false });
  } catch (error) {
    complain(`The camera cannot be used (${error.name}). Allow it in the browser's settings, or choose a file.`);
    return;
  }
  find("preview").srcObject = stream;
  await find("preview").play();
  find("record").textContent = "Record";
  find("recorder").hidden = false;
  find("record").focus();
}

function record() {
  if (recorder?.state === "recording") {
    recorder.stop();
    return;
  }
  const parts = [];
  const quick = "video/webm;codecs=vp8";
  recorder = new MediaRecorder(stream, MediaRecorder.isTypeSupported(quick) ? { mimeType: quick } : {});
  recorder.ondataavailable = (event) => parts.push(event.data);
  recorder.onstop = () => recognise(new Blob(parts, { type: recorder.mimeType }), "camera.webm");
  recorder.start();
  find("record").textContent = "Stop, and recognise";
}

// One picture is on its way at a time, so a slow service gets fewer.
function watch() {
  if (socket) {
    socket.close();
    return;
  }
  const live = new WebSocket(new URL("v1/live", location.href.replace(/^http/, "ws")));
  const [preview, canvas] = [find("preview"), document.createElement("canvas")];
  socket = live;
  find("watch").setAttribute("aria-pressed", "true");
  find("watch").textContent = "Stop watching";
  find("seen").textContent = "…";
  const send = () => {
    [canvas.width, canvas.height] = [preview.videoWidth, preview.videoHeight];
    canvas.getContext("2d").drawImage(preview, 0, 0);
    canvas.toBlob((picture) => live.readyState === WebSocket.OPEN && live.send(picture), "image/jpeg", 0.9);
  };
  live.onopen = () => live.send(JSON.stringify({ token, model: find("model").value || null, top: 1 }));
  live.onmessage = (event) => {
    const { problem, result } = JSON.parse(event.data);
    if (problem) complain(problem.detail);
    if (result) find("seen").textContent = `${result.label}, ${percent(result.probability)}`;
    if (!problem) setTimeout(send, PICTURE_MS);
  };
  live.onclose = () => {
    socket = null;
    find("watch").setAttribute("aria-pressed", "false");
    find("watch").textContent = "Watch live";
    find("seen").textContent = "";
  };
}

function closeCamera() {
  socket?.close();
  if (recorder?.state === "recording") {
    recorder.onstop = null;
    recorder.stop();
  }
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
  find("recorder").hidden = true;
}

// Events

find("file").addEventListener("change", (event) => {
  const [file] = event.target.files;
  if (file) recognise(file, file.name);
  event.target.value = ""; // so that the same file can be chosen again
});
for (const [name, over] of [["dragenter", true], ["dragover", true], ["dragleave", false], ["drop", false]]) {
  find("drop").addEventListener(name, (event) => {
    event.preventDefault();
    find("drop").classList.toggle("over", over);
    const file = name === "drop" && event.dataTransfer.files[0];
    if (file) recognise(file, file.name);
  });
}
find("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!waiting || !find("token").value) return;
  token = find("token").value.trim();
  find("access").hidden = find("problem").hidden = true;
  const then = waiting;
  waiting = null;
  then();
});
find("cancel").addEventListener("click", () => cancel());
find("camera").addEventListener("click", openCamera);
find("record").addEventListener("click", record);
find("watch").addEventListener("click", watch);
find("close-camera").addEventListener("click", closeCamera);
find("video").addEventListener("timeupdate", () => running(find("video").currentTime - offset()));
find("video").addEventListener("error", () => {
  find("unplayable").hidden = false;
  find("video").parentElement.hidden = true;
});
find("save-json").addEventListener("click", () => {
  save(new Blob([JSON.stringify(shown.result, null, 1)], { type: "application/json" }), "result.json");
});
find("save-vtt").addEventListener("click", async () => {
  try {
    save(await (await ask(`v1/jobs/${shown.job}/timeline.vtt`)).blob(), "timeline.vtt");
  } catch (error) {
    complain(error.message);
  }
});

async function start() {
  try {
    const models = await (await ask("v1/models")).json();
    find("model").replaceChildren(...models.map(({ name, network }) => element("option", `${name} (${network})`, { value: name })));
  } catch (error) {
    if (error.status === 401) askForToken(start);
    else complain(error.message);
  }
}
start();
