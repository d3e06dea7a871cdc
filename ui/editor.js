// The editor: a photo, and a translucent hole painted over it. Gradio runs this once, with `element`, `props`,
// `trigger` and `watch`. The server sends orders in props.order; props.value is what it gets:
// {hole: PNG as a data URL, "" if nothing is painted; eyes: [[x, y, x, y], ...] of marked faces, as shares of the photo}.
const find = (selector) => element.querySelector(selector);
const root = find(".editor"), stage = find(".stage"), view = find(".view"), photo = find(".photo");
const canvas = find("canvas"), faces = find(".faces"), size = find(".size"), dialog = find("dialog");
const context = canvas.getContext("2d", { willReadFrequently: true });
const COLOUR = "rgb(255, 0, 255)";  // shown half transparent
let tool = "brush", past = [""], now = 0, marked = [], clicked = [], last = null, panning = null, space = false;
let zoom = { scale: 1, x: 0, y: 0 };

const report = () => {
  props.value = { hole: past[now], eyes: marked };
  find("[data-do=undo]").disabled = now === 0;
  find("[data-do=redo]").disabled = now === past.length - 1;
};
const remember = (hole) => {
  if (hole === past[now]) return;
  past = [...past.slice(0, now + 1), hole].slice(-50);
  now = past.length - 1;
  report();
};
const painted = () => {
  const pixels = new Uint32Array(context.getImageData(0, 0, canvas.width, canvas.height).data.buffer);
  return pixels.some((pixel) => pixel) ? canvas.toDataURL() : "";
};
const image = (url) => new Promise((done, failed) => {
  const picture = new Image();
  picture.onload = () => done(picture);
  picture.onerror = failed;
  picture.src = url;
});
const show = async (hole) => {
  const picture = hole && await image(hole);
  if (hole !== past[now]) return;  // undone meanwhile
  context.globalCompositeOperation = "source-over";
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (picture) context.drawImage(picture, 0, 0);
};
const step = (by) => {
  now = Math.min(Math.max(now + by, 0), past.length - 1);
  show(past[now]);
  report();
};
const place = () => {
  view.style.transform = `translate(${zoom.x}px, ${zoom.y}px) scale(${zoom.scale})`;
};
const fit = () => {
  zoom = { scale: 1, x: 0, y: 0 };
  place();
};
const outline = (corners) => {
  const points = corners.map((face) => face.map(([x, y]) => `${x * canvas.width},${y * canvas.height}`).join(" "));
  const dots = clicked.map(([x, y]) => `<circle cx="${x * canvas.width}" cy="${y * canvas.height}" r="5"/>`);
  faces.setAttribute("viewBox", `0 0 ${canvas.width} ${canvas.height}`);
  faces.innerHTML = points.map((list) => `<polygon points="${list}"/>`).join("") + dots.join("");
};
let corners = [], carried;

const follow = async () => {
  const order = props.order || {};
  if (order.serial === carried) return;  // Gradio reports some changes twice
  carried = order.serial;
  if (order.photo !== undefined) {
    [past, now, marked, clicked, corners] = [[""], 0, [], [], []];
    root.hidden = !order.photo;
    if (order.photo) {
      photo.src = order.photo;
      [canvas.width, canvas.height] = order.size;
      // The photo and the hole over it fill as much of the stage as their shape allows.
      view.style.aspectRatio = `${order.size[0]} / ${order.size[1]}`;
      stage.style.setProperty("--shape", order.size[0] / order.size[1]);
      size.value = Math.round(Math.min(...order.size) / 12);
    }
    fit();
    use("brush");
    report();
  }
  if (order.faces) {
    corners = order.faces;
    outline(corners);
  }
  if (order.hole !== undefined) {
    const picture = await image(order.hole);
    context.globalCompositeOperation = "source-over";
    if (!order.add) context.clearRect(0, 0, canvas.width, canvas.height);
    context.drawImage(picture, 0, 0);
    remember(painted());
  }
};
watch("order", follow);

const use = (name) => {
  tool = name;
  clicked = [];
  outline(corners);
  stage.dataset.tool = name;
  for (const button of element.querySelectorAll("button[data-tool]")) {
    button.setAttribute("aria-pressed", String(button.dataset.tool === name));
  }
};
const at = (event) => {
  const box = canvas.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
};
const stroke = (from, to) => {
  context.globalCompositeOperation = tool === "eraser" ? "destination-out" : "source-over";
  context.strokeStyle = COLOUR;
  context.lineWidth = Number(size.value);
  context.lineCap = context.lineJoin = "round";
  context.beginPath();
  context.moveTo(from[0] * canvas.width, from[1] * canvas.height);
  context.lineTo(to[0] * canvas.width, to[1] * canvas.height);
  context.stroke();
};
stage.addEventListener("pointerdown", (event) => {
  if (event.button > 1 || !event.isPrimary) return;
  stage.setPointerCapture(event.pointerId);
  if (space || event.button === 1) {
    panning = [event.clientX - zoom.x, event.clientY - zoom.y];
  } else if (tool === "eyes") {
    clicked.push(at(event).map((share) => Math.min(Math.max(share, 0), 0.9999)));
    outline(corners);
    if (clicked.length === 2) {
      // The eye that is left in the photo comes first.
      marked = [...marked, clicked.sort((a, b) => a[0] - b[0]).flat()];
      report();
      use("brush");
      trigger("marked");
    }
  } else {
    last = at(event);
    stroke(last, last);
  }
});
stage.addEventListener("pointermove", (event) => {
  if (panning) {
    zoom = { ...zoom, x: event.clientX - panning[0], y: event.clientY - panning[1] };
    place();
  } else if (last) {
    for (const moved of event.getCoalescedEvents?.() || [event]) {
      const point = at(moved);
      stroke(last, point);
      last = point;
    }
  }
});
const end = () => {
  if (last) remember(painted());
  last = panning = null;
};
stage.addEventListener("pointerup", end);
stage.addEventListener("pointercancel", end);
stage.addEventListener("wheel", (event) => {
  if (!event.ctrlKey) return;
  event.preventDefault();
  const box = stage.getBoundingClientRect(), times = Math.exp(-event.deltaY / 300);
  const scale = Math.min(Math.max(zoom.scale * times, 1), 12), by = scale / zoom.scale;
  const [x, y] = [event.clientX - box.left - box.width / 2, event.clientY - box.top - box.height / 2];
  zoom = scale === 1 ? { scale, x: 0, y: 0 } : { scale, x: x - (x - zoom.x) * by, y: y - (y - zoom.y) * by };
  place();
}, { passive: false });

const actions = {
  undo: () => step(-1),
  redo: () => step(1),
  clear: () => {
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (past[now]) remember("");
  },
  invert: () => {
    context.globalCompositeOperation = "xor";
    context.fillStyle = COLOUR;
    context.fillRect(0, 0, canvas.width, canvas.height);
    remember(painted());
  },
  box: () => {
    const [x, y, width, height] = [...element.querySelectorAll(".box input")].map((field) => Number(field.value) / 100);
    context.globalCompositeOperation = "source-over";
    context.fillStyle = COLOUR;
    context.fillRect(...[x * canvas.width, y * canvas.height, width * canvas.width, height * canvas.height].map(Math.round));
    remember(painted());
  },
  keys: () => dialog.open ? dialog.close() : dialog.showModal(),
  close: () => dialog.close(),
};
element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button?.dataset.tool) use(button.dataset.tool);
  if (button?.dataset.do) actions[button.dataset.do]();
});
// A click on a tool leaves the keys to the editor.
find(".tools").addEventListener("mousedown", (event) => event.target.closest("button") && event.preventDefault());

const press = (id) => document.querySelector(`#${id}:not([disabled])`)?.click();
const grow = (times) => { size.value = Math.max(4, Math.round(size.value * times)); };
const keys = {
  "[": () => grow(0.8), "]": () => grow(1.25), escape: fit, enter: () => press("complete"), r: () => press("again"),
  h: actions.keys, " ": () => { space = true; stage.dataset.pan = ""; },
};
document.addEventListener("keydown", (event) => {
  const key = event.key.toLowerCase();
  const field = event.target.closest("input:not([type=range]), textarea, select, [contenteditable]");
  const undoes = (event.ctrlKey || event.metaKey) && (key === "z" || key === "y");
  if (root.hidden || !root.offsetParent || (field && !(undoes && !field.value))) return;  // an empty field has no undo
  if (undoes) {
    step(key === "y" || event.shiftKey ? 1 : -1);
  } else if (event.ctrlKey || event.metaKey || event.altKey || !keys[key] || !find(".single").checked) {
    return;
  } else if ("enter ".includes(key) && event.target.closest("button, a, summary, [role=option], [role=tab]")) {
    return;  // they have their own use of it
  } else if (dialog.open && key !== "h") {
    return;
  } else {
    keys[key]();
  }
  event.preventDefault();
});
document.addEventListener("keyup", (event) => {
  if (event.key === " ") {
    space = false;
    delete stage.dataset.pan;
  }
});
follow();
