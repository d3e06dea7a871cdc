// The page: buttons, keys, drop, paste, strips, and what the status says.
import { View, toPng } from "./canvas.js";
import * as photos from "./photos.js";
import { Gone, back, call, download, loggedIn, upload } from "./server.js";

const $ = (id) => document.getElementById(id);
const facts = JSON.parse(document.body.dataset.facts);
const PARTS = ["eyes", "left eye", "right eye", "nose", "mouth", "left half", "right half", "whole face"];
const MISSING = "No face found. Tap both eyes of the person, the left one in the picture first.";
const NOTHING = "Nothing is marked yet. Paint over what is missing.";
let all = [], photo = null, tool = "brush", taps = [], every = false, running = null, later = [];

const say = (words, state = document.body.dataset.state) => {
  document.body.dataset.state = state;
  if ($("words").textContent !== words) $("words").textContent = words;
  if (!busy()) complain("");
};
const complain = (words) => { $("problem").textContent = words; };  // beside what runs
const name = (file) => file.name || "photo.png";
const capital = (words) => words[0].toUpperCase() + words.slice(1);

// ---- the canvas
const broadest = () => Math.max(8, Math.min(photo.width, photo.height) / 3);
const size = () => broadest() ** ($("size").value / 100);  // the slider is logarithmic and starts at 1 px
const grow = (times) => {
  $("size").value = Number($("size").value) + 100 * Math.log(times) / Math.log(broadest());
  view.draw();
};
const view = new View($("stage"), {
  size, grow,
  stroke: (stroke) => {
    if (busy()) return later.push(stroke), show();  // it is filled after what runs
    paint([...photos.painted(photo), stroke]);
    if ($("atonce").checked && !stroke.erase) fill();
  },
  tapped: (point) => {
    taps = [...taps, point];
    if (taps.length === 2) mark(taps.sort((a, b) => a[0] - b[0]).flat());
    show();
  },
  face: (index, zoom) => {
    photo.chosen = index;
    if (zoom) view.zoomTo(photo.faces[index].corners);
    show();
  },
  eye: () => mark(photo.faces[photo.chosen].eyes.flat(), photo.chosen),
});

const paint = (strokes) => {
  photos.paint(photo, strokes);
  ready();
  show();
  photos.keep(all, photo);
};

// ---- pictures on screen
const decode = async (item) => item.picture ??= await createImageBitmap(item.file ?? item.patch.blob);
const layers = (of, id = of.now) => photos.chain(of, id).map((step) =>
  step.patch ? { picture: step.picture, x: step.patch.x, y: step.patch.y } : { picture: of.picture, x: 0, y: 0 });
// What a step changed, and as much again around it: x, y, width, height.
const around = (of, { patch: { x, y }, picture }) => {
  const side = Math.min(2 * Math.max(picture.width, picture.height, 32), of.width, of.height);
  const left = Math.min(Math.max(x + (picture.width - side) / 2, 0), of.width - side);
  return [left, Math.min(Math.max(y + (picture.height - side) / 2, 0), of.height - side), side, side];
};
const thumbnail = async (of, step) => {
  await Promise.all([decode(of), ...photos.chain(of, step.id).slice(1).map(decode)]);
  const box = step.patch ? around(of, step) : [0, 0, of.width, of.height], scale = 128 / Math.max(box[2], box[3]);
  const canvas = new OffscreenCanvas(Math.max(1, box[2] * scale), Math.max(1, box[3] * scale));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.scale(scale, scale);
  context.translate(-box[0], -box[1]);
  for (const { picture, x, y } of layers(of, step.id)) context.drawImage(picture, x, y);
  step.thumb = URL.createObjectURL(await canvas.convertToBlob({ type: "image/jpeg", quality: 0.8 }));
};

const choose = async (next, fit = true) => {
  if (photo && photo !== next) for (const item of [photo, ...photo.steps]) item.picture = null;  // memory
  if (photo !== next) later = [];
  photo = next;
  [tool, taps] = [tool === "eyes" ? "brush" : tool, []];
  if (photo) {
    if (!photo.faces && photo.state === "failed") [photo.state, photo.reason] = ["open", ""];  // look again
    await Promise.all([decode(photo), ...photo.steps.filter((step) => step.patch).map(decode)]);
    if (photo !== next) return;
    ready();
    show(fit);
  } else {
    view.scene = null;
    view.resize();
    say("", "empty");
    show();
  }
};

const show = (fit = false, id = photo?.now) => {
  const waits = busy() && !$("atonce").checked;
  if (photo) {
    const original = id !== photo.now;
    view.show({
      layers: layers(photo, id), width: photo.width, height: photo.height, tool: waits ? "wait" : tool, taps,
      strokes: original ? [] : [...photos.painted(photo), ...later], faces: original ? [] : photo.faces ?? [], chosen: photo.chosen,
    }, fit);
  }
  $("stage").className = !photo ? "" : view.space ? "moves" : waits ? "waits" : tool === "eyes" ? "taps" : "draws";
  for (const each of ["brush", "eraser"]) $(each).setAttribute("aria-pressed", String(tool === each));
  $("missing").setAttribute("aria-pressed", String(tool === "eyes"));
  if (photo) showControls();
  showStrips();
};

const row = (list, items) => {  // buttons are kept, so that the focus stays
  while (list.children.length > items.length) list.lastChild.remove();
  items.forEach((item, index) => {
    let button = list.children[index];
    if (list.tagName === "OL") {
      if (!button) list.append(button = document.createElement("li"));
      button = button.firstChild ?? button.appendChild(document.createElement("button"));
    } else if (!button) list.append(button = document.createElement("button"));
    item(button);
  });
};
const tile = (of, step, label, current, click) => (button) => {
  if (!button.firstChild) button.append(new Image(), document.createElement("span"));
  const [picture, words] = button.children;
  picture.alt = "";
  if (step.thumb && picture.src !== step.thumb) picture.src = step.thumb;
  if (!step.thumb && of === photo) thumbnail(of, step).then(() => { picture.src = step.thumb; });
  if (words.textContent !== label) words.textContent = label;
  const comes = current && button.getAttribute("aria-current") !== "true";
  if (comes) requestAnimationFrame(() => button.scrollIntoView({ block: "nearest", inline: "nearest" }));
  button.setAttribute("aria-current", String(current));
  button.onclick = click;
};

const selected = () => every ? photo.faces ?? [] : (photo.faces ?? []).slice(photo.chosen, photo.chosen + 1);
const has = (part, index) => photos.painted(photo).some((stroke) => stroke.part === part && stroke.face === index);
const showControls = () => {
  const faces = photo.faces ?? [], working = busy();
  const many = faces.length > 1 ? [...faces, null] : [];
  row($("numbers"), many.map((face, index) => (button) => {
    button.textContent = face ? index + 1 : "All";
    button.setAttribute("aria-label", face ? `Face ${index + 1}` : "All faces");
    button.setAttribute("aria-pressed", String(face ? !every && index === photo.chosen : every));
    button.onclick = () => { every = !face; if (face) photo.chosen = index; show(); };
    button.ondblclick = () => face && view.zoomTo(face.corners);
  }));
  row($("parts"), faces.length ? PARTS.map((part) => (button) => {
    button.textContent = capital(part);
    button.setAttribute("aria-pressed", String(selected().length > 0
      && selected().every((face) => has(part, faces.indexOf(face)))));
    button.disabled = working;
    button.onclick = (event) => toggle(part, event.shiftKey ? faces : selected());
  }) : []);
  const strokes = photos.painted(photo);
  $("undo").disabled = working || !photos.canUndo(photo);
  $("redo").disabled = working || !photos.canRedo(photo);
  $("clear").disabled = working || !strokes.length;
  $("again").disabled = working || !photos.tries(photo).length;
  $("damage").disabled = $("reference").disabled = $("fill").hidden = working;
  $("stop").hidden = !working;
  $("sensitivity").disabled = working && document.body.dataset.state !== "searching";
  $("reference").setAttribute("aria-pressed", String(others(photo).length > 0));
  $("sensitivity").hidden = !photo.searched;
};
const toggle = (part, faces) => {
  const indices = faces.map((face) => photo.faces.indexOf(face)), strokes = photos.painted(photo);
  const on = indices.every((index) => has(part, index));
  const kept = strokes.filter((stroke) => !(stroke.part === part && indices.includes(stroke.face)));
  paint(on ? kept : [...kept, ...indices.map((index) => ({ face: index, part, outlines: photo.faces[index].parts[part] }))]);
};

const showStrips = () => {
  row($("steps"), (photo?.steps ?? []).map((step) => tile(photo, step, step.label ?? "original", step.id === photo.now, () => {
    if (busy()) return;
    photos.goTo(photo, step.id);
    ready();
    show();
    photos.keep(all, photo);
  })));
  const marked = (of) => of.state === "filled" || of.state === "failed" ? of.state : "open";
  row($("photos"), all.map((of) => (button) => {
    tile(of, of.steps[0], of.name, of === photo, () => choose(of))(button);
    button.dataset.state = marked(of);
    const state = marked(of) === "open" ? "" : `, ${marked(of)}`;
    button.setAttribute("aria-label", `${of.name}${state}`);
  }));
  $("film").hidden = all.length < 2;
  for (const id of ["fillall", "saveall"]) $(id).disabled = busy();
};

// ---- what the status says
const busy = () => running !== null;
const ready = () => {
  if (busy() || !photo) return;
  const step = photos.current(photo), count = photo.faces?.length, marked = photos.painted(photo).length;
  if (count === 0 && step.from === null && !marked && tool !== "eyes") use("eyes");
  if (photo.state === "failed") return say(photo.reason, "failed");
  if (!photo.faces) return find(photo), say("Looking for faces ...", "opening");
  if (marked) return say("Press Fill in, or mark more.", "ready");
  if (step.from !== null) return say(step.words ?? "Done. Paint on, try again, or save.", "ready");
  const found = `${count === 1 ? "1 face" : `${count} faces`}. Paint over what is missing, or choose a part of a face.`;
  say(`${photo.note ?? ""} ${count ? found : MISSING}`.trim(), "ready");
};
const use = (name) => {
  tool = tool === name && name === "eyes" ? "brush" : name;
  taps = [];
  const words = "Tap both eyes of the person, or drag the dots on the eyes of a face.";
  if (tool === "eyes" && photo?.faces?.length) say(words, "ready");
  show();
};

// ---- the server
// What calls take for a photo and its steps; what the server does not have is uploaded.
const sent = async (of, signal, id = of.now) => {
  of.remote ??= await upload(of.file, of.name, signal);
  const steps = [];
  for (const step of photos.chain(of, id).slice(1)) {
    step.remote ??= await upload(step.patch.blob, "step.png", signal);
    steps.push({ file: step.remote, x: step.patch.x, y: step.patch.y });
  }
  return { photo: of.remote, steps };
};
const others = (of) => of.references ?? [];  // other photos of the person
// Do something again when the server is back, or when it has forgotten the photos.
const lasting = async (ofs, work, signal) => {
  for (let tries = 0; ;) {
    try {
      return await work();
    } catch (error) {
      const forgotten = /not uploaded/.test(error.message);
      if (error instanceof Gone) {
        const before = $("words").textContent;
        say(error.message);
        await back(signal);
        say(before);
      } else if (!forgotten || tries++ > 1) throw error;
      for (const of of ofs) for (const item of [of, ...of.steps, ...others(of)]) item.remote = null;
    }
  }
};

const find = (of) => {
  of.finding ??= lasting([of], async () => {
    of.faces = (await call("open", [(await sent(of, undefined, 0)).photo, null])).faces;
    photos.keep(all, of);
  }).catch((error) => {
    [of.state, of.reason] = ["failed", error.message];
  }).then(() => {
    of.finding = null;
    if (of === photo) ready(), show();
    else showStrips();
  });
  return of.finding;
};
// Wait until the faces of a photo are known, or for Stop.
const searched = async (of, signal) => {
  const stopped = () => new Promise((_, stop) => { signal.onabort = () => stop(signal.reason); });
  if (!of.faces) await Promise.race([find(of), stopped()]);
  if (!of.faces) throw new Error(of.reason);
};

// Someone who was missing, or whose eyes were dragged.
const mark = async (eyes, index = null) => {
  const of = photo;
  try {
    const found = await lasting([of], async () => call("open", [(await sent(of, undefined, 0)).photo, eyes]));
    of.chosen = index ?? (of.faces ??= []).length;
    of.faces = of.faces.toSpliced(of.chosen, index === null ? 0 : 1, found.faces[0]);
    if (index === null) tool = "brush";
    if (of.state === "failed") [of.state, of.reason] = ["open", ""];
    ready();
    photos.keep(all, of);
  } catch (error) {
    say(error.message, "failed");
  }
  taps = [];
  show();
};

const waiting = ({ ahead, seconds }) =>
  `${ahead === 1 ? "1 person is" : `${ahead} people are`} before you, about ${Math.max(1, seconds)} second${seconds > 1 ? "s" : ""}.`;
const words = ({ faces, outside, quick, notes }) => {
  if (notes?.length) return notes.join(" ");
  if (quick) return "This took too long, so the fill is a quick one. Try again for a better one.";
  if (!faces) return "No face lies there. It was filled from what is around it.";
  if (outside) return "A part lies outside the face. It was filled from what is around it.";
  return "Done. Paint on, try again, or save.";
};

// Fill in one photo: the strokes on the picture of the step `from`. Throws what went wrong.
const work = async (of, from, strokes, signal, doing = "Filling in ...") => {
  const marks = await toPng(strokes, of.width, of.height);
  if (!marks) throw new Error(NOTHING);
  await searched(of, signal);
  const attempt = of.steps.filter((step) => step.from === from && step.strokes === strokes).length;
  const [answer, blob] = await lasting([of], async () => {
    const known = await sent(of, signal, from), faces = of.faces.map((face) => face.alignment);
    for (const other of others(of)) other.remote ??= await upload(other.file, other.name, signal);
    const shown = others(of).map((other) => other.remote), painted = await upload(marks, "marks.png", signal);
    const answer = await call("fill", [known.photo, painted, known.steps, faces, attempt, shown],
      signal, (item) => {
        if (item.state === "waiting") say(waiting(item), "waiting");
        if (item.state === "filling") say(doing, "filling");
      });
    return [answer, await download(answer.file, signal)];
  }, signal);
  const picture = await createImageBitmap(blob);
  photos.addStep(of, from, strokes, attempt, { blob, x: answer.x, y: answer.y });
  const step = photos.current(of);
  [step.words, step.remote, of.reason] = [words(answer), answer.file, ""];
  if (of === photo) step.picture = picture;
  await photos.keep(all, of);
};
// Run one long thing at a time, which Stop ends.
const long = async (task, doing = "Filling in ...", state = "filling") => {
  if (busy()) return;
  running = new AbortController();
  const focus = document.activeElement;
  say(doing, state);
  show();
  if (focus.hidden || focus.disabled) $("stop").focus();
  let result, error = null;
  try {
    result = await task(running.signal);
  } catch (caught) {
    error = caught;
  }
  const problem = $("problem").textContent;
  running = null;
  if (error) error.name === "AbortError" ? say("Stopped.", "ready") : say(error.message, "failed");
  else result ? say(result, "ready") : ready();
  complain(problem);
  show();
  if ([document.body, $("stop")].includes(document.activeElement)) focus.focus();
  const strokes = later.splice(0);
  if (!strokes.length) return;
  paint([...photos.painted(photo), ...strokes]);
  if (!error) fill();
};
const fill = () => {
  if (!photo || busy()) return;
  const of = photo, strokes = photos.painted(of);
  if (!strokes.length) return say(NOTHING, "failed");
  of.state = "open";
  return long((signal) => work(of, of.now, strokes, signal));
};
const again = () => {
  const of = photo, step = of && photos.current(of);
  if (!of || busy() || step.from === null) return;
  return long((signal) => work(of, step.from, step.strokes, signal));
};
// Mark what the server finds damaged; what was painted by hand stays.
const damage = async (of, signal) => {
  let outlines, sensitivity;
  do {
    sensitivity = $("sensitivity").value;
    ({ outlines } = await lasting([of], async () =>
      call("damage", [...Object.values(await sent(of, signal)), sensitivity / 100], signal), signal));
  } while (sensitivity !== $("sensitivity").value);  // it was moved meanwhile
  const kept = photos.painted(of).filter((stroke) => stroke.part !== "damage");
  photos.paint(of, outlines.length ? [{ part: "damage", size: 1, outlines }, ...kept] : kept);  // before the eraser
  of.searched = true;
  photos.keep(all, of);
  return outlines.length ? "Damage is marked. Change it with brush and eraser, then fill in."
    : "No damage was found. Move the slider to the right to find more.";
};
const findDamage = () => photo && long((signal) => damage(photo, signal), "Looking for damage ...", "searching");
// The same parts, or the damage, in every photo; photos with marks of their own keep them.
const fillAll = () => {
  const shown = photos.painted(photo).length ? photos.painted(photo) : photos.current(photo).strokes;
  const wanted = new Set(shown.map((stroke) => stroke.part).filter(Boolean)), parts = [...wanted].filter((part) => part !== "damage");
  if (!wanted.size && !all.some((of) => photos.painted(of).length)) return say(NOTHING, "failed");
  return long(async (signal) => {
    let failed = 0;
    for (const [index, of] of all.entries()) {
      signal.throwIfAborted();
      if (of.state === "filled" && !photos.painted(of).length) continue;
      const doing = `Filling in ${index + 1} of ${all.length} ...`;
      say(doing, "filling");
      try {
        await searched(of, signal);
        if (!photos.painted(of).length) {
          if (!wanted.size) throw new Error("Nothing is marked in this photo. Paint over what is missing, or choose a part.");
          if (parts.length && !of.faces.length) throw new Error(MISSING);
          if (parts.length < wanted.size) await damage(of, signal);
          photos.paint(of, [...photos.painted(of), ...of.faces.flatMap((face, index) =>
            parts.map((part) => ({ face: index, part, outlines: face.parts[part] })))]);
          if (!photos.painted(of).length) continue;  // it has no damage
        }
        await work(of, of.now, photos.painted(of), signal, doing);
      } catch (error) {
        if (error.name === "AbortError") throw error;
        [of.state, of.reason] = ["failed", error.message];
        failed++;
      }
      show();
    }
    if (failed) throw new Error(`${failed} of ${all.length} photos could not be filled. Choose one to see why.`);
  });
};

// ---- saving
const offer = (blob, as) => {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: as });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
};
const fetchFile = (ofs, name, data) => lasting(ofs, async () => {
  const file = await call(name, await data());
  offer(await download(file), file.orig_name);
}).catch((error) => complain(error.message));
const save = () => photo && fetchFile([photo], "save", async () => Object.values(await sent(photo)));
const saveAll = () => fetchFile(all, "save_all", async () => {
  const items = [];
  for (const of of all) items.push({ name: of.name, reason: of.reason, ...(of.steps.length > 1 && await sent(of)) });
  return [items];
});
const copy = async () => {
  const canvas = new OffscreenCanvas(photo.width, photo.height), context = canvas.getContext("2d");
  for (const { picture, x, y } of layers(photo)) context.drawImage(picture, x, y);
  try {
    await navigator.clipboard.write([new ClipboardItem({ "image/png": canvas.convertToBlob({ type: "image/png" }) })]);
    say("Copied.");
  } catch {  // there is no clipboard without HTTPS
    complain("The browser lets this page copy nothing. Save the photo instead.");
  }
};

// ---- opening
const open = async (files) => {
  const problems = [];
  let first = null;
  for (const file of files) {
    if (all.length >= facts.photos) {
      problems.push(`At most ${facts.photos} photos fit. Remove some first.`);
      break;
    }
    try {
      if (!first && !busy()) say("Opening ...");
      const found = await photos.read(file, facts.pixels);
      const added = photos.newPhoto(name(file), found);
      [added.picture, added.note] = [found.picture, found.note];
      all.push(added);
      photos.keep(all, added);
      if (!first) await choose(first = added);
      else {
        await thumbnail(added, added.steps[0]);
        added.picture = null;
        showStrips();
      }
    } catch (error) {
      problems.push(error.message);
    }
  }
  if (problems.length) {
    await first?.finding;
    ready();
    const words = [...new Set(problems)].join(" ");
    if (photo) complain(words);
    else say(words, "empty");
  }
};
// Other photos of the person, from which large faces get their detail.
const refer = async (files) => {
  const found = [];
  if (files.length > 8) return complain("Choose at most 8 photos of this person.");
  try {
    for (const file of files) found.push({ file: (await photos.read(file, facts.pixels)).file, name: name(file), remote: null });
  } catch (error) {
    return complain(error.message);
  }
  photo.references = found;
  const count = files.length === 1 ? "1 photo of this person is" : `${files.length} photos of this person are`;
  say(files.length ? `${count} used from now on. Fill in, or try again.` : "No other photo of this person is used.");
  show();
  photos.keep(all, photo);
};
const remove = async () => {
  $("sure").close();
  const at = all.indexOf(photo);
  await photos.forget(photo);
  all = all.filter((other) => other !== photo);
  photo = null;
  await choose(all[Math.min(at, all.length - 1)] ?? null);
};

// ---- controls
const on = (id, work) => $(id).addEventListener("click", work);
for (const id of ["open", "open2"]) on(id, () => $("files").click());
$("files").addEventListener("change", () => { open([...$("files").files]); $("files").value = ""; });
on("example", async () => open([new File([await (await fetch("example.jpg")).blob()], "astronaut.jpg", { type: "image/jpeg" })]));
for (const id of ["brush", "eraser"]) on(id, () => use(id));
on("missing", () => use("eyes"));
const step = (by) => () => {
  if (!photo || busy() || !by(photo)) return;
  ready();
  show();
  photos.keep(all, photo);
};
on("undo", step(photos.undo));
on("redo", step(photos.redo));
on("clear", () => paint([]));
on("fill", fill);
on("damage", findDamage);
on("reference", () => others(photo).length ? refer([]) : $("others").click());
$("others").addEventListener("change", () => { refer([...$("others").files]); $("others").value = ""; });
$("sensitivity").addEventListener("change", findDamage);
on("again", again);
on("stop", () => running?.abort());
on("fillall", fillAll);
on("saveall", saveAll);
on("save", save);
on("help", () => $("keys").showModal());
on("close", () => $("keys").close());
on("remove", () => { $("keys").close(); $("sure").showModal(); });
on("no", () => $("sure").close());
on("yes", remove);
on("closer", () => view.zoom(1.5));
on("farther", () => view.zoom(1 / 1.5));
$("size").addEventListener("input", () => { view.ring ??= view.toPhoto([$("stage").clientWidth / 2, $("stage").clientHeight / 2]); view.draw(); });
for (const id of ["letters", "atonce"]) {
  const kept = localStorage.getItem(id);
  if (kept !== null) $(id).checked = kept === "true";
  $(id).addEventListener("change", () => localStorage.setItem(id, $(id).checked));
}
const original = (held) => {
  if (!photo || ($("original").getAttribute("aria-pressed") === "true") === held) return;
  $("original").setAttribute("aria-pressed", String(held));
  show(false, held ? 0 : photo.now);
};
$("original").addEventListener("pointerdown", (event) => { $("original").setPointerCapture(event.pointerId); original(true); });
for (const end of ["pointerup", "pointercancel", "blur"]) $("original").addEventListener(end, () => original(false));

const inField = (event) => event.target.closest("input:not([type=range], [type=checkbox])");
const keys = {
  "[": () => grow(0.85), "]": () => grow(1 / 0.85), "+": () => view.zoom(1.5), "=": () => view.zoom(1.5),
  "-": () => view.zoom(1 / 1.5), escape: () => view.fit(), enter: fill, r: again, o: () => original(true),
  h: () => $("keys").showModal(),
};
const arrows = { arrowleft: [-1, 0], arrowright: [1, 0], arrowup: [0, -1], arrowdown: [0, 1] };
const command = { z: (event) => step(event.shiftKey ? photos.redo : photos.undo)(), y: step(photos.redo), s: save, c: copy };
document.addEventListener("keydown", (event) => {
  const key = event.key.toLowerCase(), onStage = event.target === $("stage");
  if ((!photo && key !== "h") || inField(event) || document.querySelector("dialog[open]")) return;
  if (event.ctrlKey || event.metaKey) {
    if (!command[key] || (key === "c" && String(getSelection()))) return;
    command[key](event);
  } else if (event.altKey) {
    return;
  } else if (key === " " && !event.target.closest("button, a, input, label")) {
    if (!event.repeat && onStage && view.keys && !busy()) view.begin(view.ring);
    else if (!view.stroke && !view.space) { view.space = true; show(); }
  } else if (arrows[key] && onStage) {
    view.step(...arrows[key]);
  } else if (key === "enter" || key === " " || key === "o" && event.target === $("original")) {
    if (event.target === $("original") && key !== "o") original(true);
    if (event.target.closest("button, a, input, summary") || key === " ") return;
    fill();
  } else if (!$("letters").checked && key !== "escape") {
    return;
  } else if (/^[1-9]$/.test(key) && photo.faces?.[key - 1]) {
    [photo.chosen, every] = [key - 1, false];
    show();
  } else if (keys[key]) {
    keys[key]();
  } else return;
  event.preventDefault();
});
document.addEventListener("keyup", (event) => {
  if (event.key === " " && view.space) { view.space = false; show(); }
  if (event.key === " " && view.keys) view.end();
  if (event.key.toLowerCase() === "o" || event.target === $("original")) original(false);
});

// Drop and paste anywhere.
for (const kind of ["dragenter", "dragover"]) document.addEventListener(kind, (event) => {
  event.preventDefault();
  document.body.classList.add("over");
});
for (const kind of ["dragleave", "drop"]) document.addEventListener(kind, (event) => {
  event.preventDefault();
  if (kind === "drop" || !event.relatedTarget) document.body.classList.remove("over");
  if (kind === "drop" && event.dataTransfer.files.length) open([...event.dataTransfer.files]);
});
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) open([...event.clipboardData.files]);
});

// ---- start
$("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  const answer = await fetch("login", { method: "POST", body: new FormData($("login")) });
  if (answer.ok) location.reload();
  else say(answer.status === 400 ? "The name or the password is wrong." : await answer.text());
});
$("privacy").textContent = facts.local ? "Your photos stay on this computer." : "This server deletes your photos after one hour.";
$("explore").hidden = !facts.explore;
$("logout").hidden = !facts.login;
if (facts.login && !await loggedIn()) {
  say("", "login");
} else {
  all = (await photos.kept()).sort((a, b) => a.used - b.used);
  const latest = all.at(-1);
  all.sort((a, b) => a.id < b.id ? -1 : 1);
  await choose(latest ?? null);
  for (const of of all) if (of !== photo) thumbnail(of, of.steps[0]).then(() => { of.picture = null; showStrips(); });
}
