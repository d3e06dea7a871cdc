// The result: a picture while the hole is filled, then before and after, the candidates and their files.
// props.value is null, {preview: data URL}, or {before, afters, crops, files}, each file as Gradio describes it.
const find = (selector) => element.querySelector(selector);
const compare = find(".compare"), before = find(".before"), after = find(".after"), range = find(".compare input");
const offers = find(".offers"), hold = find(".hold"), candidates = find(".candidates");
const address = (file) => file.url || `gradio_api/file=${file.path}`;
const named = (file) => file.orig_name || file.path.split("/").pop();

const wipe = (share) => {
  before.style.clipPath = `inset(0 ${100 - share}% 0 0)`;
  find(".line").style.left = `${share}%`;
};
const link = (anchor, file) => {
  anchor.href = address(file);
  anchor.download = named(file);
  return anchor;
};
const choose = (number) => {
  after.src = address(props.value.afters[number]);
  link(find(".download"), props.value.files[number]);
  candidates.querySelectorAll("button").forEach((button, index) => {
    button.setAttribute("aria-pressed", String(index === number));
  });
};
const item = (child) => {
  const entry = document.createElement("li");
  entry.append(child);
  return entry;
};
const candidate = (file, number) => {
  const button = document.createElement("button"), picture = new Image();
  button.type = "button";
  picture.src = address(file);
  picture.alt = `Candidate ${number + 1}`;
  button.append(picture);
  button.addEventListener("click", () => choose(number));
  return item(button);
};
const show = () => {
  const value = props.value;
  find(".empty").hidden = Boolean(value);
  compare.hidden = !value;
  offers.hidden = !value?.files;
  compare.classList.toggle("done", Boolean(value?.files));
  if (value?.preview) after.src = value.preview;
  if (!value?.files) return;
  before.src = address(value.before);
  range.value = 0;
  wipe(0);
  candidates.replaceChildren(...(value.crops.length > 1 ? value.crops.map(candidate) : []));
  find("#files ul").replaceChildren(...value.files.map((file) => {
    const anchor = link(document.createElement("a"), file);
    anchor.textContent = named(file);
    return item(anchor);
  }));
  after.addEventListener("load", () => compare.scrollIntoView({ block: "nearest" }), { once: true });
  choose(0);
};
watch("value", show);
range.addEventListener("input", () => wipe(Number(range.value)));

const original = (on) => compare.classList.toggle("original", on);
for (const [name, on] of [["pointerdown", true], ["pointerup", false], ["pointerleave", false], ["blur", false]]) {
  hold.addEventListener(name, () => original(on));
}
const held = (event) => {
  const own = event.target === hold && (event.key === " " || event.key === "Enter");
  const key = event.key.toLowerCase() === "o" && !event.ctrlKey && !event.metaKey && !event.altKey
    && !event.target.closest("input:not([type=range]), textarea, select") && document.querySelector(".single")?.checked;
  return (own || key) && !offers.hidden;
};
document.addEventListener("keydown", (event) => {
  if (held(event)) {
    event.preventDefault();
    original(true);
  }
});
document.addEventListener("keyup", (event) => held(event) && original(false));
show();
