// Every page works without JavaScript. This script adds keyboard shortcuts, the player, countdowns, live counts and refreshing.

const one = (selector, from = document) => from.querySelector(selector);
const all = (selector, from = document) => [...from.querySelectorAll(selector)];
const clock = (s) => `${Math.floor(s / 60)}:${(s % 60).toFixed(1).padStart(4, "0")}`;

document.body.classList.add("keyboard");

// --- menus close when something else is clicked, and with Escape

document.addEventListener("click", (event) => {
  for (const menu of all("details[data-dropdown][open]")) if (!menu.contains(event.target)) menu.open = false;
});

// --- a second click within five seconds does not submit a form again

const sent = new WeakMap();
document.addEventListener("submit", (event) => {
  const last = sent.get(event.target);
  if (last && Date.now() - last < 5000) event.preventDefault();
  else sent.set(event.target, Date.now());
});

// --- remember display options

for (const box of all("[data-remember]")) {
  const name = `desk.${box.dataset.remember}`;
  const kept = localStorage.getItem(name);
  if (kept !== null) box.checked = kept === "1";
  box.addEventListener("change", () => localStorage.setItem(name, box.checked ? "1" : "0"));
}

// --- decisions that can be undone

for (const form of all("form[data-undo]")) {
  const until = Date.parse(form.dataset.until);
  const left = one("[data-left]", form);
  const tick = () => {
    const seconds = Math.ceil((until - Date.now()) / 1000);
    if (seconds > 0) {
      left.textContent = `· can be undone for ${seconds} s`;
      return;
    }
    clearInterval(timer);
    one("button", form).remove();
    form.removeAttribute("data-undo");
    left.textContent = "· done; this can no longer be undone";
    setTimeout(() => form.remove(), 5000);
  };
  const timer = setInterval(tick, 250);
  tick();
}

// --- the review's player

const review = one("[data-review]");
const player = review && one("[data-player]", review);

if (player) {
  const transport = one("[data-transport]");
  const seek = one("[data-seek]");
  const shown = one("[data-time]");
  const lines = all("[data-at]", review);
  const big = one("[data-bigplay]");
  const step = 1 / 30;
  player.controls = false;
  transport.hidden = false;
  big.hidden = false;

  const paint = () => {
    const now = player.currentTime;
    seek.value = now;
    seek.style.setProperty("--at", `${(100 * now) / (player.duration || Number(seek.max) || 1)}%`);
    shown.textContent = clock(now);
    if (now > 0.1) big.classList.add("off");
    const spoken = lines.find((line) => now >= Number(line.dataset.at) && now < Number(line.dataset.end));
    for (const line of lines) {
      if (line === spoken && !line.hasAttribute("aria-current")) {
        line.setAttribute("aria-current", "true");
        if (!player.paused && innerWidth >= 1100) line.scrollIntoView({ block: "nearest" });
      } else if (line !== spoken) line.removeAttribute("aria-current");
    }
  };
  const follow = () => {
    paint();
    if (!player.paused) requestAnimationFrame(follow);
  };
  const toggle = () => (player.paused ? player.play() : player.pause());
  player.addEventListener("play", () => {
    review.classList.add("playing");
    big.classList.add("off");
    follow();
  });
  player.addEventListener("pause", () => {
    review.classList.remove("playing");
  });
  for (const name of ["seeked", "timeupdate", "loadedmetadata"]) player.addEventListener(name, paint);
  player.addEventListener("volumechange", () => review.classList.toggle("muted", player.muted));
  player.addEventListener("click", toggle);
  big.addEventListener("click", toggle);
  one("[data-play]").addEventListener("click", toggle);
  one("[data-mute]").addEventListener("click", () => (player.muted = !player.muted));
  for (const button of all("[data-step]")) button.addEventListener("click", () => frame(Number(button.dataset.step)));
  seek.addEventListener("input", () => (player.currentTime = Number(seek.value)));
  for (const line of lines)
    line.addEventListener("click", (event) => {
      event.preventDefault();
      player.currentTime = Number(line.dataset.at) + 0.01;
      paint();
    });
  // The URL of a video expires within minutes. When the page was open longer, fetch a new URL once.
  player.addEventListener("error", async () => {
    if (player.dataset.fresh) return;
    player.dataset.fresh = "1";
    const page = await fetched(location.href);
    const found = page && one("[data-player]", page);
    if (!found) return;
    const at = player.currentTime;
    player.src = found.getAttribute("src");
    player.addEventListener("loadedmetadata", () => (player.currentTime = at), { once: true });
  });
  review.toggle = toggle;
  review.frame = (by) => frame(by);
  function frame(by) {
    player.pause();
    player.currentTime = Math.min(Math.max(0, player.currentTime + by * step), player.duration || 0);
  }
  paint();
}

// --- two revisions side by side: the longer video drives the playhead of both

const twins = one("[data-twins]");
if (twins) {
  const videos = all("video", twins);
  const lead = one("video[data-lead]", twins);
  const others = videos.filter((video) => video !== lead);
  const seek = one("[data-twin-seek]", twins);
  const ended = (video) => video.duration && lead.currentTime >= video.duration;
  const both = (at) => {
    for (const video of videos) video.currentTime = Math.min(Math.max(0, at), video.duration || at);
  };
  const stop = () => videos.forEach((video) => video.pause());
  const paint = () => {
    seek.value = lead.currentTime;
    seek.style.setProperty("--at", `${(100 * lead.currentTime) / (lead.duration || Number(seek.max) || 1)}%`);
    one("[data-twin-time]", twins).textContent = clock(lead.currentTime);
    for (const video of others)
      if (!ended(video) && Math.abs(video.currentTime - lead.currentTime) > 0.15) video.currentTime = lead.currentTime;
    twins.classList.toggle("playing", !lead.paused);
  };
  twins.toggle = () => {
    if (!lead.paused) return stop();
    for (const video of videos) if (video === lead || !ended(video)) video.play();
  };
  twins.frame = (by) => {
    stop();
    both(lead.currentTime + by / 30);
  };
  for (const video of videos) {
    video.controls = false;
    video.addEventListener("click", () => twins.toggle());
  }
  for (const name of ["timeupdate", "seeked", "play", "pause", "loadedmetadata"]) lead.addEventListener(name, paint);
  lead.addEventListener("pause", stop);
  one("[data-twin-controls]", twins).hidden = false;
  one("[data-twin-play]", twins).addEventListener("click", () => twins.toggle());
  for (const button of all("[data-twin-step]", twins)) button.addEventListener("click", () => twins.frame(Number(button.dataset.twinStep)));
  seek.addEventListener("input", () => both(Number(seek.value)));
}

// --- a rejection records the position in the video

const rejecting = one("[data-reject]");
if (rejecting) {
  const reason = one("[data-reason]", rejecting);
  rejecting.addEventListener("toggle", () => {
    if (!rejecting.open) return;
    if (player) {
      player.pause();
      const now = player.currentTime;
      const spoken = all("[data-at]", review).findLast((line) => now >= Number(line.dataset.at));
      one("[data-at-second]", rejecting).value = now > 0 ? now.toFixed(1) : "";
      one("[data-at-scene]", rejecting).value = now > 0 && spoken ? spoken.dataset.scene : "";
      one("[data-at-said]", rejecting).textContent =
        now > 0 && spoken ? (Number(spoken.dataset.scene) ? `scene ${spoken.dataset.scene}` : "hook") : "the whole video";
    }
    reason.focus();
  });
  one("[data-chips]", rejecting).hidden = false;
  for (const chip of all("[data-reason-chip]", rejecting))
    chip.addEventListener("click", () => {
      reason.value = reason.value ? `${reason.value.trimEnd()} ${chip.textContent}` : chip.textContent;
      reason.focus();
    });
}

// --- the selected platform is part of the URL

for (const radio of all("[data-platform]"))
  radio.addEventListener("change", () => {
    const here = new URL(location.href);
    here.searchParams.set("platform", radio.value);
    history.replaceState(null, "", here);
    // Keep the platform for the next video.
    for (const field of all("input[name=platform]", review)) field.value = radio.value;
    for (const link of all("[data-next], [data-previous], .queue li a, .facts .steps a", review)) {
      const there = new URL(link.href);
      there.searchParams.set("platform", radio.value);
      link.href = there;
    }
  });

// --- the calendar: drag a video to another hour; the server shows warnings before it saves

// A narrow window shows only some days of the week: scroll to today.
const today = one(".week thead [aria-current]");
if (today) today.closest(".scroll").scrollLeft = today.offsetLeft - one(".week th").offsetWidth;

const moving = one("[data-move-form]");
if (moving) {
  let dragged = null;
  const slot = (event) => event.target.closest?.("[data-slot]");
  for (const entry of all("[data-movable]")) {
    entry.draggable = true;
    entry.addEventListener("dragstart", (event) => {
      dragged = entry;
      entry.classList.add("dragged");
      event.dataTransfer.effectAllowed = "move";
      event.dataTransfer.setData("text/plain", entry.dataset.entry);
    });
    entry.addEventListener("dragend", () => {
      dragged = null;
      entry.classList.remove("dragged");
      for (const cell of all(".over")) cell.classList.remove("over");
    });
  }
  document.addEventListener("dragover", (event) => {
    const cell = dragged && slot(event);
    for (const other of all(".over")) if (other !== cell) other.classList.remove("over");
    if (!cell) return;
    event.preventDefault();
    cell.classList.add("over");
  });
  document.addEventListener("drop", (event) => {
    const cell = dragged && slot(event);
    if (!cell) return;
    event.preventDefault();
    if (cell.contains(dragged)) return;
    moving.action = `/calendar/${encodeURIComponent(dragged.dataset.entry)}/move`;
    moving.elements.at.value = `${cell.dataset.slot}:${dragged.dataset.minute}`;
    moving.elements.was.value = dragged.dataset.was;
    moving.elements.on.value = dragged.dataset.on;
    moving.requestSubmit();
  });
}

// --- keys

const submit = (form) => form && form.requestSubmit(one("button", form));
// A decision opens the next video. An accidental double press must not decide on that video, which the user has not seen.
const DOUBLE_PRESS_MS = 800;
const decide = (form) => {
  if (!form || Date.now() - Number(sessionStorage.getItem("decided")) < DOUBLE_PRESS_MS) return;
  sessionStorage.setItem("decided", Date.now());
  submit(form);
};
const actions = {
  j: () => one("[data-next]")?.click(),
  k: () => one("[data-previous]")?.click(),
  " ": () => (review ?? twins)?.toggle?.(),
  ",": () => (review ?? twins)?.frame?.(-1),
  ".": () => (review ?? twins)?.frame?.(1),
  m: () => player && (player.muted = !player.muted),
  a: () => decide(one("[data-approve]")),
  h: () => decide(one("[data-hold]")),
  r: () => {
    if (!rejecting) return;
    rejecting.open = true;
    one("[data-reason]", rejecting).focus(); // at once: the toggle event comes later, and the next letter would be a shortcut
  },
  e: () => one("[data-edit]")?.click(),
  "/": () => {
    const field = one("[data-search]");
    if (field) field.focus();
    else if (one(".menu")) location.assign("/pipeline#q"); // the search field is on the pipeline page
  },
  "?": () => one("#keys")?.showModal(),
};
if (location.hash === "#q") one("[data-search]")?.focus();
for (const n of [1, 2, 3]) actions[n] = () => all("[data-platform]")[n - 1]?.click();

const typing = (target) =>
  target.isContentEditable || target.matches("textarea, select, input:not([type=checkbox], [type=radio], [type=range], [type=button])");

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") for (const menu of all("details[data-dropdown][open]")) menu.open = false;
  if (typing(event.target) || event.altKey || one("dialog[open]")) return;
  if (event.ctrlKey || event.metaKey) {
    if (event.key.toLowerCase() === "z" && !event.shiftKey) {
      const form = one("form[data-undo]");
      if (form) {
        event.preventDefault();
        sessionStorage.removeItem("decided"); // the user has seen this video, so no double-press guard
        submit(form);
      }
    }
    return;
  }
  const action = actions[event.key];
  // Space on a button presses the button. On a link it would only scroll, so there it plays or pauses.
  if (!action || event.repeat || (event.key === " " && event.target.closest("button, summary, input:not([type=range])"))) return;
  event.preventDefault();
  action();
});

// --- live parts of the page

async function fetched(address) {
  try {
    // A redirect leads to the log-in page, whose cookie would make a log-in form in another tab too old.
    const answer = await fetch(address, { headers: { Accept: "text/html" }, redirect: "manual" });
    return answer.ok ? new DOMParser().parseFromString(await answer.text(), "text/html") : null;
  } catch {
    return null; // the next event tries again
  }
}

async function refresh(kind = "") {
  // Do not replace a part in which the user has ticked or opened something.
  const live = all(`[data-live="${kind}"]`).filter((part) => !one("input:checked, details[open]:not(.queue-fold)", part));
  if (!live.length) return;
  const page = await fetched(location.href);
  if (!page) return;
  for (const part of live) {
    const fresh = page.getElementById(part.id);
    if (fresh && fresh.innerHTML !== part.innerHTML && !part.contains(document.activeElement)) {
      const scrolled = part.scrollTop;
      part.replaceWith(fresh);
      fresh.scrollTop = scrolled;
    }
  }
}

let events = null;
let known = null;

function listen() {
  events?.close();
  events = new EventSource("/events");
  events.addEventListener("counts", (event) => {
    const counts = JSON.parse(event.data);
    for (const badge of all("[data-count]")) {
      const count = counts[badge.dataset.count] ?? 0;
      badge.textContent = count > 999 ? "999+" : count;
      badge.hidden = !count;
    }
    if (known !== null && known !== event.data) {
      if (one("[data-reload=review]") && counts.review) location.reload();
      else refresh();
    }
    known = event.data;
  });
  let board = null;
  events.addEventListener("board", (event) => {
    if (board !== null && board !== event.data) refresh("board");
    board = event.data;
  });
  // Browsers reconnect by themselves, but not after an error response such as a 503.
  events.addEventListener("error", () => {
    if (events.readyState === EventSource.CLOSED) setTimeout(listen, 5000);
  });
}

if (one(".menu")) {
  listen();
  addEventListener("pagehide", () => events.close());
  addEventListener("pageshow", (event) => event.persisted && listen());
  if (one("[data-live=bulk]")) setInterval(() => refresh("bulk"), 1000);
}
