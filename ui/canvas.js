// The canvas: the photo and what is painted on it, zoom, pointers, brush ring. Coordinates are pixels of the photo.
//
// View is given `events`: stroke(points, size), tapped(point), face(index, zoom), eye(index, point), and `size()`, the
// brush size. It shows `scene`: {layers: [{picture, x, y}], width, height, strokes, faces, chosen, tool, taps}.
const MOST_PX = 4096;  // longest side of what is uploaded
const COLOUR = "rgb(255, 0, 200)", FACE = "#34d3ff", TOUCH = 24, MOUSE = 12;

// Draw strokes and parts on a context whose transform maps the photo to it.
export const drawStrokes = (context, strokes) => {
  context.fillStyle = context.strokeStyle = COLOUR;
  context.lineCap = context.lineJoin = "round";
  for (const { erase, size, points, outlines } of strokes) {
    context.globalCompositeOperation = erase ? "destination-out" : "source-over";
    context.lineWidth = size;
    context.beginPath();
    for (const outline of outlines ?? []) {
      context.moveTo(...outline[0]);
      for (const point of outline) context.lineTo(...point);
      context.closePath();
    }
    if (outlines) context.fill("evenodd");  // found damage has gaps
    if (outlines && size) context.stroke();
    if (!points) continue;
    for (const point of points) context.lineTo(...point);
    context.lineTo(points.at(-1)[0] + 0.01, points.at(-1)[1]);  // a dot
    context.stroke();
  }
  context.globalCompositeOperation = "source-over";
};

// What is painted as a PNG in the photo's size, for the server; null if nothing is left of it.
export const toPng = async (strokes, width, height) => {
  const scale = Math.min(1, MOST_PX / Math.max(width, height));
  const canvas = new OffscreenCanvas(Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale)));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.scale(canvas.width / width, canvas.height / height);
  drawStrokes(context, strokes);
  const pixels = new Uint32Array(context.getImageData(0, 0, canvas.width, canvas.height).data.buffer);
  return pixels.some((pixel) => pixel >>> 24 > 127) ? canvas.convertToBlob({ type: "image/png" }) : null;
};

export class View {
  constructor(stage, events) {
    Object.assign(this, { stage, events, scene: null, scale: 1, x: 0, y: 0, ring: null, keys: false, space: false });
    [this.picture, this.marks] = stage.querySelectorAll("canvas");
    this.layer = new OffscreenCanvas(1, 1);
    this.fingers = new Map();
    this.doing = null;  // "stroke", "pan", "pinch" or "eye"
    new ResizeObserver(() => this.resize()).observe(stage);
    for (const name of ["down", "move", "up", "cancel"]) {
      stage.addEventListener(`pointer${name}`, (event) => event.target.closest("button, a, input") || this[name](event));
    }
    stage.addEventListener("pointerleave", () => { if (!this.doing && !this.keys) { this.ring = null; this.draw(); } });
    stage.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
  }

  show(scene, fit = false) {
    const first = !this.scene || fit;
    this.scene = scene;
    if (first) this.fit();
    else this.draw(true);
  }

  resize() {
    const ratio = window.devicePixelRatio, { clientWidth, clientHeight } = this.stage;
    const { x, y, scale, least, before } = this;
    for (const canvas of [this.picture, this.marks, this.layer]) {
      canvas.width = Math.max(1, Math.round(clientWidth * ratio));
      canvas.height = Math.max(1, Math.round(clientHeight * ratio));
    }
    this.fit();
    this.before = { clientWidth, clientHeight };
    if (!this.scene || !(scale > least)) return;
    this.move_(x + (clientWidth - before.clientWidth) / 2, y + (clientHeight - before.clientHeight) / 2, Math.max(scale, this.least));
  }

  // The whole photo, as large as the stage lets it be.
  fit() {
    if (!this.scene) return;
    const { clientWidth, clientHeight } = this.stage, { width, height } = this.scene;
    this.least = Math.min((clientWidth - 16) / width, (clientHeight - 16) / height);
    this.scale = this.least;
    [this.x, this.y] = [(clientWidth - width * this.scale) / 2, (clientHeight - height * this.scale) / 2];
    this.draw(true);
  }

  // Zoom about a point of the stage.
  zoom(times, [x, y] = [this.stage.clientWidth / 2, this.stage.clientHeight / 2]) {
    const scale = Math.min(Math.max(this.scale * times, this.least), Math.max(16, this.least * 4));
    if (scale <= this.least) return this.fit();
    const by = scale / this.scale;
    this.move_(x - (x - this.x) * by, y - (y - this.y) * by, scale);
  }

  zoomTo(points) {
    const [xs, ys] = [0, 1].map((axis) => points.map((point) => point[axis]));
    const [left, right, top, bottom] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    const { clientWidth, clientHeight } = this.stage;
    const scale = Math.max(this.least, 0.8 * Math.min(clientWidth / (right - left), clientHeight / (bottom - top)));
    this.move_(clientWidth / 2 - (left + right) / 2 * scale, clientHeight / 2 - (top + bottom) / 2 * scale, scale);
  }

  move_(x, y, scale = this.scale) {  // some of the photo stays in view
    const { clientWidth, clientHeight } = this.stage, { width, height } = this.scene;
    this.scale = scale;
    this.x = Math.min(Math.max(x, 60 - width * scale), clientWidth - 60);
    this.y = Math.min(Math.max(y, 60 - height * scale), clientHeight - 60);
    this.draw(true);
  }

  // A frame is drawn once, however many events ask for it.
  draw(all = false) {
    this.all ||= all;
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      if (this.scene) this.paint(this.all);
      this.all = false;
    });
  }

  paint(all) {
    const { layers, strokes, faces, chosen, tool, taps } = this.scene, ratio = window.devicePixelRatio;
    const place = [this.scale * ratio, 0, 0, this.scale * ratio, this.x * ratio, this.y * ratio];
    if (all) {
      const context = this.picture.getContext("2d");
      context.resetTransform();
      context.clearRect(0, 0, this.picture.width, this.picture.height);
      context.setTransform(...place);
      context.imageSmoothingEnabled = this.scale * ratio < 4;
      context.imageSmoothingQuality = "high";
      for (const { picture, x, y } of layers) context.drawImage(picture, x, y);
    }
    const layer = this.layer.getContext("2d"), context = this.marks.getContext("2d");
    layer.resetTransform();
    layer.clearRect(0, 0, this.layer.width, this.layer.height);
    layer.setTransform(...place);
    layer.save();
    layer.beginPath();
    layer.rect(0, 0, this.scene.width, this.scene.height);
    layer.clip();
    drawStrokes(layer, this.stroke ? [...strokes, this.stroke] : strokes);
    layer.restore();
    context.resetTransform();
    context.clearRect(0, 0, this.marks.width, this.marks.height);
    context.globalAlpha = 0.5;
    context.drawImage(this.layer, 0, 0);
    context.globalAlpha = 1;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    const line = (colour, width) => Object.assign(context, { strokeStyle: colour, lineWidth: width });
    const circle = ([x, y], radius) => {
      context.beginPath();
      context.arc(x, y, radius, 0, 7);
      for (const [colour, width] of [["#000a", 3], ["#fff", 1.5]]) line(colour, width), context.stroke();
    };
    faces.forEach(({ corners, eyes }, index) => {
      context.beginPath();
      for (const corner of corners) context.lineTo(...this.toStage(corner));
      context.closePath();
      for (const [colour, width] of [["#0008", 3], [index === chosen ? FACE : "#fffc", 1.5]]) line(colour, width), context.stroke();
      const [x, y] = this.badge(corners);
      context.fillStyle = index === chosen ? FACE : "#fff";
      context.beginPath();
      context.arc(x, y, 11, 0, 7);
      context.fill();
      Object.assign(context, { fillStyle: "#000", font: "600 12px system-ui", textAlign: "center", textBaseline: "middle" });
      context.fillText(index + 1, x, y);
      if (index === chosen && tool === "eyes") for (const eye of eyes) circle(this.toStage(eye), 5);
    });
    for (const tap of taps) circle(this.toStage(tap), 6);
    if (this.ring && tool !== "eyes" && tool !== "wait" && !this.space) circle(this.toStage(this.ring), Math.max(2, this.events.size() * this.scale / 2));
  }

  toStage([x, y]) { return [x * this.scale + this.x, y * this.scale + this.y]; }
  toPhoto([x, y]) { return [(x - this.x) / this.scale, (y - this.y) / this.scale]; }
  badge(corners) { return this.toStage(corners[0]).map((value) => Math.max(12, value)); }
  inside([x, y]) { return x >= 0 && y >= 0 && x < this.scene.width && y < this.scene.height; }
  at(event) {
    const box = this.stage.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  down(event) {
    if (!this.scene || event.button > 1) return;
    const at = this.at(event), point = this.toPhoto(at), reach = event.pointerType === "touch" ? TOUCH : MOUSE;
    const near = (other) => Math.hypot(other[0] - at[0], other[1] - at[1]) < reach;
    this.stage.focus({ preventScroll: true });
    this.stage.setPointerCapture(event.pointerId);
    this.fingers.set(event.pointerId, at);
    this.keys = false;
    if (event.pointerType === "touch" && this.fingers.size > 1) {  // the second finger cancels the stroke
      this.stroke = null;
      this.doing = "pinch";
    } else if (this.space || event.button === 1) {
      this.doing = "pan";
    } else {
      const { faces, chosen, tool } = this.scene;
      const face = faces.findIndex(({ corners }) => near(this.badge(corners)));
      const eye = tool === "eyes" ? (faces[chosen]?.eyes ?? []).findIndex((eye) => near(this.toStage(eye))) : -1;
      if (face >= 0) {
        this.events.face(face, this.lastFace?.[0] === face && event.timeStamp - this.lastFace[1] < 400);
        this.lastFace = [face, event.timeStamp];
      } else if (eye >= 0) {
        [this.doing, this.eye] = ["eye", eye];
      } else if (this.inside(point) && tool === "eyes") {
        this.events.tapped(point);
      } else if (this.inside(point) && tool !== "wait") {
        this.doing = "stroke";
        this.begin(point);
      }
    }
    event.preventDefault();
    this.draw();
  }

  move(event) {
    if (!this.scene) return;
    const at = this.at(event), before = this.fingers.get(event.pointerId);
    if (event.pointerType !== "touch") [this.ring, this.keys] = [this.toPhoto(at), false];
    if (before && this.doing === "pan") this.move_(this.x + at[0] - before[0], this.y + at[1] - before[1]);
    if (before && this.doing === "pinch") this.pinch(event.pointerId, before, at);
    if (before && this.doing === "eye") this.scene.faces[this.scene.chosen].eyes[this.eye] = this.toPhoto(at);
    if (this.doing === "stroke" && this.stroke) {
      const events = event.getCoalescedEvents?.() ?? [];
      for (const each of events.length ? events : [event]) this.stroke.points.push(this.toPhoto(this.at(each)));
    }
    if (before) this.fingers.set(event.pointerId, at);
    this.draw();
  }

  up(event) {
    this.fingers.delete(event.pointerId);
    if (this.doing === "stroke") this.end();
    if (this.doing === "eye") this.events.eye();
    if (this.doing !== "pinch" || !this.fingers.size) this.doing = null;
    this.draw();
  }

  cancel(event) {
    this.stroke = null;
    this.fingers.delete(event.pointerId);
    this.doing = null;
    this.draw();
  }

  pinch(id, before, at) {
    const [other] = [...this.fingers].filter(([key]) => key !== id).map(([, point]) => point);
    if (!other) return;
    const length = ([x, y]) => Math.hypot(x - other[0], y - other[1]);
    this.move_(this.x + (at[0] - before[0]) / 2, this.y + (at[1] - before[1]) / 2);
    this.zoom(length(at) / Math.max(1, length(before)), [(at[0] + other[0]) / 2, (at[1] + other[1]) / 2]);
  }

  wheel(event) {
    event.preventDefault();
    if (!this.scene) return;
    if (event.altKey) this.events.grow((event.deltaY || event.deltaX) < 0 ? 1.15 : 1 / 1.15);
    else this.zoom(Math.exp(-event.deltaY / (event.ctrlKey ? 100 : 400)), this.at(event));
    this.draw();
  }

  // Strokes, by pointer or by keys.
  begin(point) { this.stroke = { erase: this.scene.tool === "eraser", size: this.events.size(), points: [point] }; }
  end() {
    const { stroke } = this;
    this.stroke = null;
    if (stroke) this.events.stroke(stroke);
  }
  step(x, y) {
    if (!this.scene) return;
    const by = Math.max(2, 12 / this.scale), { width, height } = this.scene;
    const [ringX, ringY] = this.ring ?? [width / 2, height / 2];
    this.keys = true;
    this.ring = [Math.min(Math.max(ringX + x * by, 0), width - 1), Math.min(Math.max(ringY + y * by, 0), height - 1)];
    this.stroke?.points.push(this.ring);
    this.draw();
  }
}
