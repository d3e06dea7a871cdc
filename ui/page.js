// What Gradio's components lack: live regions, and word of a server that is gone and comes back.
() => {
  // Gradio builds a tab when it is first opened.
  const name = () => document.querySelectorAll("#status:not([role]), #batch_status:not([role])").forEach((region) => {
    region.setAttribute("role", "status");
    region.setAttribute("aria-live", "polite");
  });
  new MutationObserver(name).observe(document.body, { childList: true, subtree: true });
  name();
  const banner = document.createElement("p");
  banner.id = "connection";
  banner.setAttribute("role", "alert");
  document.body.append(banner);
  let identity = null, gone = false;
  const look = async () => {
    if (document.hidden) return;
    try {
      const health = await fetch("healthz", { cache: "no-store" });
      if (health.status !== 200 && health.status !== 401) throw new Error(await health.text());
      const now = await (await fetch("gradio_api/app_id")).text();
      identity ??= now;
      if (now !== identity) {
        banner.innerHTML = 'The server was restarted and has forgotten your photo. <a href="">Load the page again</a>.';
      } else if (gone) {
        banner.textContent = "The server is back. What was running is lost: press Complete again.";
        setTimeout(() => { banner.textContent = ""; }, 10000);
      }
      gone = false;
    } catch {
      gone = true;
      banner.textContent = "The server cannot be reached. Your photo and the hole stay here; the page tries again.";
    }
  };
  look();
  setInterval(look, 5000);
}
