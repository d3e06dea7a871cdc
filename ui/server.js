// The server: uploads, calls with their event streams, and what to do when it is gone.
export class Gone extends Error {}  // no connection

const ask = async (path, options) => {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Gone("No connection. Your work is kept here; trying again ...");
  }
  if (answer.ok) return answer;
  if (answer.status === 401) throw new Error("Log in first: load the page again.");
  if ([502, 503, 504].includes(answer.status)) throw new Gone("No connection. Your work is kept here; trying again ...");
  const words = await answer.text();
  throw new Error(words.startsWith("<") || words.length > 300 ? `The server answered with ${answer.status}.` : words);
};

// Wait until the server is there again.
export const back = async (signal) => {
  while (true) {
    await new Promise((done) => setTimeout(done, 1500));
    signal?.throwIfAborted();
    try {
      if ((await fetch("healthz")).ok) return;
    } catch { /* still gone */ }
  }
};

export const loggedIn = async () => (await fetch("gradio_api/login_check")).status !== 401;

// Upload a file; what calls take for it.
export const upload = async (blob, name, signal) => {
  const form = new FormData();
  form.append("files", blob, name);
  const [path] = await (await ask("gradio_api/upload", { method: "POST", body: form, signal })).json();
  return { path, orig_name: name, meta: { _type: "gradio.FileData" } };
};

export const download = async (file, signal) =>
  (await ask(`gradio_api/file=${file.path.split("/").map(encodeURIComponent).join("/")}`, { signal })).blob();

// Call an endpoint; `progress` gets what it answers on the way. Leaving the stream ends the work on the server.
export const call = async (name, data, signal, progress = () => {}) => {
  const headers = { "Content-Type": "application/json" };
  const begun = await ask(`gradio_api/call/${name}`, { method: "POST", headers, body: JSON.stringify({ data }), signal });
  const stream = (await ask(`gradio_api/call/${name}/${(await begun.json()).event_id}`, { signal })).body
    .pipeThrough(new TextDecoderStream()).getReader();
  for (let text = "", last; ;) {
    const { value, done } = await stream.read().catch((error) => {
      throw error.name === "AbortError" ? error : new Gone("No connection. Your work is kept here; trying again ...");
    });
    if (done) throw new Gone("No connection. Your work is kept here; trying again ...");
    text += value;
    for (let end; (end = text.indexOf("\n\n")) >= 0; text = text.slice(end + 2)) {
      const [, event, words] = text.slice(0, end).match(/^event: (.*)\ndata: (.*)$/s) || [];
      const answer = words && JSON.parse(words);
      if (event === "error") throw new Error(answer?.error || "Something went wrong on the server. Try again.");
      if (event === "complete") return answer?.[0] ?? last;
      if (event === "generating") progress(last = answer[0]);
    }
  }
};
