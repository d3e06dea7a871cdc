// Photos with their history, kept in the browser.
//
// A photo is {id, name, file, width, height, faces, chosen, steps, now, state, reason, remote, references}. `steps` is a tree: a step
// is {id, from, patch, strokes, past, at, next, attempt, label}. `patch` ({blob, x, y}) is laid over the picture of the
// step `from`; `past` are the states of what is painted on the step's own picture, and `at` the one that shows.
// Strokes are {erase, size, points}, and parts of faces {face, part, outlines}, in pixels of the photo.
const BUDGET = 200 * 2 ** 20;  // bytes kept in the browser; the photos used longest ago go first

export const FORMATS = "Use JPEG, PNG, WebP or BMP.";
const HEIC = "This is an iPhone photo (HEIC). Choose it from the Photos app, or export it as JPEG.";

// Check and decode a file; larger photos than the server takes are reduced. Throws an Error with what to do.
export const read = async (file, most) => {
  const head = new Uint8Array(await file.slice(0, 16).arrayBuffer());
  const text = String.fromCharCode(...head);
  if (/^....ftyp(hei|hev|mif|msf)/s.test(text) || /\.hei[cf]$/i.test(file.name)) throw new Error(HEIC);
  const known = /^(\xff\xd8\xff|\x89PNG|RIFF....WEBP|BM)/s.test(text);
  if (!known && !/\.(jpe?g|png|webp|bmp)$/i.test(file.name)) throw new Error(`"${file.name}" is not a photo. ${FORMATS}`);
  let picture;
  try {
    picture = await createImageBitmap(file);
  } catch {
    throw new Error(`"${file.name}" cannot be read. It may be damaged.`);
  }
  const { width, height } = picture, scale = Math.sqrt(most / (width * height));
  if (scale >= 1) return { picture, file, width, height };
  const canvas = new OffscreenCanvas(Math.floor(width * scale), Math.floor(height * scale));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  const small = await canvas.convertToBlob({ type: text.startsWith("\x89PNG") ? "image/png" : "image/jpeg", quality: 0.95 });
  const note = `This photo is very large (${width}x${height}). It is used at ${canvas.width}x${canvas.height}.`;
  return { picture: await createImageBitmap(small), file: small, width: canvas.width, height: canvas.height, note };
};

export const newPhoto = (name, { file, width, height }) => ({
  id: crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`, name, file, width, height, faces: null, chosen: 0,
  steps: [newStep(0, null)], now: 0, state: "open", reason: "", used: Date.now(),
});

const newStep = (id, from, more = {}) => ({ id, from, patch: null, strokes: [], past: [[]], at: 0, next: null, attempt: 0, ...more });

export const current = (photo) => photo.steps[photo.now];
export const painted = (photo) => current(photo).past[current(photo).at];

// The steps from the original to one step.
export const chain = (photo, id = photo.now) => {
  const found = [];
  for (let step = photo.steps[id]; step; step = photo.steps[step.from]) found.unshift(step);
  return found;
};

// Replace what is painted; undo leads back to what was.
export const paint = (photo, strokes) => {
  const step = current(photo);
  step.past = [...step.past.slice(0, step.at + 1), strokes].slice(-200);
  step.at = step.past.length - 1;
  step.next = null;
  if (photo.state === "failed") photo.state = "open";
};

export const goTo = (photo, id) => {
  photo.now = id;
  const { from } = photo.steps[id];
  if (from !== null) photo.steps[from].next = id;
};

// Strokes are undone one by one; before the first one, the step is undone.
export const undo = (photo) => {
  const step = current(photo);
  if (step.at > 0) step.at--;
  else if (step.from !== null) goTo(photo, step.from), photo.steps[step.from].next = step.id;
  else return false;
  return true;
};

export const redo = (photo) => {
  const step = current(photo);
  if (step.at < step.past.length - 1) step.at++;
  else if (step.next !== null) goTo(photo, step.next);
  else return false;
  return true;
};

export const canUndo = (photo) => current(photo).at > 0 || photo.now !== 0;
export const canRedo = (photo) => current(photo).at < current(photo).past.length - 1 || current(photo).next !== null;

// Add the result of a fill of the step `from`: 1, 2 and so on; alternatives are 2b, 2c.
export const addStep = (photo, from, strokes, attempt, patch) => {
  const depth = chain(photo, from).length;
  const tries = photo.steps.filter((step) => step.from === from && step.strokes === strokes);
  const first = tries[0]?.label.split(" ")[0] ?? `${depth}`;
  const names = [...new Set(strokes.map((stroke) => stroke.part ?? ""))];
  const words = names.length === 1 && names[0] ? ` ${names[0]}` : "";
  const label = `${first}${tries.length ? String.fromCharCode(97 + Math.min(tries.length, 25)) : ""}${words}`;
  const step = newStep(photo.steps.length, from, { strokes, attempt, patch, label });
  photo.steps.push(step);
  goTo(photo, step.id);
  photo.state = "filled";
};

// The tries of the current step; an empty list on the original.
export const tries = (photo) => {
  const step = current(photo);
  return step.from === null ? [] : photo.steps.filter((other) => other.from === step.from && other.strokes === step.strokes);
};

// IndexedDB: one record for each photo. Without it (private windows of some browsers), the page works and forgets.
const opened = new Promise((done) => {
  const request = indexedDB.open("fill-in-a-face", 1);
  request.onupgradeneeded = () => request.result.createObjectStore("photos", { keyPath: "id" });
  request.onsuccess = () => done(request.result);
  request.onerror = () => done(null);
});
const run = async (mode, work) => {
  const base = await opened;
  if (!base) return null;
  return new Promise((done) => {
    const transaction = base.transaction("photos", mode), request = work(transaction.objectStore("photos"));
    transaction.oncomplete = () => done(request.result);
    transaction.onerror = transaction.onabort = () => done(null);
  });
};
const bytes = ({ file, steps, references }) =>
  [file, ...steps.map((step) => step.patch?.blob), ...(references ?? []).map((other) => other.file)]
    .reduce((sum, each) => sum + (each?.size ?? 0), 0);

export const keep = async (photos, photo) => {
  if (!photos.includes(photo)) return;  // it was removed meanwhile
  photo.used = Date.now();
  await run("readwrite", (store) => store.put(plain(photo)));
  let sum = 0;
  for (const other of [...photos].sort((a, b) => b.used - a.used)) {
    sum += bytes(other);
    if (sum > BUDGET) await forget(other);
  }
};
// Pictures on screen and files on the server are made again.
const plain = (photo) => ({
  ...photo, remote: null, finding: null, picture: null, references: photo.references?.map((other) => ({ ...other, remote: null })),
  steps: photo.steps.map((step) => ({ ...step, remote: null, thumb: null, picture: null })),
});
export const forget = (photo) => run("readwrite", (store) => store.delete(photo.id));
export const kept = async () => (await run("readonly", (store) => store.getAll())) ?? [];
