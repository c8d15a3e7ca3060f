// Brings the first page up to date while it is looked at.
const EVERY = 5000;
const wrong = document.getElementById("wrong");
let next;

// Elements stay where they can, with what is focused, selected or pointed at in them.
function bring(old, fresh) {
  if (old.nodeName !== fresh.nodeName) return old.replaceWith(fresh);
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes)
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  const olds = [...old.childNodes];
  const freshes = [...fresh.childNodes];
  freshes.forEach((one, place) => (place < olds.length ? bring(olds[place], one) : old.append(one)));
  olds.slice(freshes.length).forEach((one) => one.remove());
}

async function refresh() {
  const began = performance.now();
  let answer, text;
  try {
    answer = await fetch("/");
    text = await answer.text();
  } catch {
    wrong.textContent =
      "`downloader inspect` does not answer any more: these figures stay as they are. Start it again, and reload.";
    return;
  }
  const page = new DOMParser().parseFromString(text, "text/html");
  if (answer.ok) {
    const lives = page.querySelectorAll(".live");
    document.querySelectorAll(".live").forEach((old, place) => bring(old, lives[place]));
  }
  wrong.textContent = answer.ok ? "" : page.getElementById("what-was-wrong").textContent;
  // Of a million runs the page takes a second to make: most of the time is not for this.
  plan(Math.max(EVERY, 10 * (performance.now() - began)));
}

function plan(wait) {
  clearTimeout(next);
  if (!document.hidden) next = setTimeout(refresh, wait);
}

document.addEventListener("visibilitychange", () => plan(0));
document.getElementById("refreshed").textContent = ", refreshed while you look";
plan(EVERY);
