// Refreshes what is shown, and adds keys and ticks.  Every page works without it.
//
// A page is asked for again with the ETag of what is shown, and an unchanged one costs 304 and no body.  Nothing is asked while the tab is
// hidden.  Rows never move while the pointer, the focus or a tick is among them: then a notice says that there is news.

const POLICY = globalThis.trustedTypes?.createPolicy('desk', { createHTML: (text) => text });
const main = document.getElementById('main');
const notice = document.getElementById('notice');
const chooser = document.getElementById('refresh');
const remembered = {
  get: (key, otherwise) => { try { return localStorage.getItem(key) ?? otherwise; } catch { return otherwise; } },
  set: (key, value) => { try { localStorage.setItem(key, value); } catch { /* a browser that keeps nothing */ } },
};
const isLive = !['confirm', 'result', 'runner', 'error', 'help', 'entry', 'edit', 'review', 'configuration'].includes(main.dataset.page);

let etag = null;
let timer = 0;
let slow = 1;
let pending = null;

const rows = () => document.querySelector('[data-rows]');
const ticks = () => [...document.querySelectorAll('input[name=entry][type=checkbox]')];

function isBusy(part) {
  const selection = getSelection();
  return part.matches(':hover') || part.contains(document.activeElement)
    || (selection && !selection.isCollapsed && part.contains(selection.anchorNode))
    || (part === rows() && ticks().some((box) => box.checked));
}

// The text of each part that follows is taken over; an element is never taken from under somebody.
function takeOver(fresh) {
  for (const part of document.querySelectorAll('[data-live]')) {
    const next = fresh.querySelector(`[data-live="${CSS.escape(part.dataset.live)}"]`);
    if (next && next.innerHTML !== part.innerHTML && !isBusy(part)) part.replaceChildren(...document.importNode(next, true).childNodes);
  }
  for (const image of document.querySelectorAll('img[src*="/spark/"]')) image.src = `${image.src.split('?')[0]}?${Date.now()}`;
  takeOverRows(fresh);
}

function takeOverRows(fresh) {
  const shown = rows();
  const next = fresh.querySelector('[data-rows]');
  if (!shown || !next) {
    if (Boolean(shown) !== Boolean(next)) tell('The list has changed.', fresh);
    return;
  }
  const keys = (table) => [...table.querySelectorAll('[data-key]')].map((row) => row.dataset.key);
  const before = new Set(keys(shown));
  const after = keys(next);
  const news = after.filter((key) => !before.has(key)).length;
  const gone = before.size - (after.length - news);
  if (!news && !gone) { notice.hidden = true; pending = null; return; }
  const bar = document.querySelector('#list .actbar');
  if (isBusy(shown) || (bar && isBusy(bar))) {
    tell(`${news ? `${news} new` : ''}${news && gone ? ', ' : ''}${gone ? `${gone} gone` : ''}`, fresh);
    return;
  }
  shown.tBodies[0].replaceChildren(...document.importNode(next.tBodies[0], true).childNodes);
  notice.hidden = true;
  pending = null;
}

function tell(text, fresh) {
  pending = fresh;
  if (!notice.hidden && notice.dataset.text === text) return;
  notice.dataset.text = text;
  const button = document.createElement('button');
  button.type = 'button';
  button.textContent = 'Show';
  button.addEventListener('click', () => location.reload());
  notice.replaceChildren(text, button);
  notice.hidden = false;
}

async function refresh() {
  clearTimeout(timer);
  const seconds = Number(chooser.value);
  if (!seconds || document.hidden) return;
  const began = performance.now();
  try {
    const answer = await fetch(location.href, { headers: etag ? { 'If-None-Match': etag } : {}, redirect: 'error' });
    if (answer.status === 200) {
      etag = answer.headers.get('ETag');
      const text = await answer.text();
      takeOver(new DOMParser().parseFromString(POLICY ? POLICY.createHTML(text) : text, 'text/html'));
    }
    // What could not be taken over before, and has not changed since.
    if (answer.status === 304 && pending) takeOver(pending);
    if (!answer.ok && answer.status !== 304) throw new Error(String(answer.status));
    if (notice.dataset.text === 'The desk does not answer.') notice.hidden = true;
    // A desk that is slow is asked less often.
    slow = performance.now() - began > 1000 ? Math.min(slow * 2, 16) : 1;
  } catch {
    slow = Math.min(slow * 2, 16);
    tell('The desk does not answer.', null);
  }
  timer = setTimeout(refresh, seconds * slow * 1000);
}

if (isLive) {
  chooser.disabled = false;
  chooser.value = remembered.get('refresh', '5');
  if (!chooser.value) chooser.value = '5';
  chooser.addEventListener('change', () => { remembered.set('refresh', chooser.value); refresh(); });
  document.addEventListener('visibilitychange', () => (document.hidden ? clearTimeout(timer) : refresh()));
  timer = setTimeout(refresh, Number(chooser.value) * 1000 || 1e9);
  if (chooser.value === '0') clearTimeout(timer);
}

// Ticks.
function countTicks() {
  const many = ticks().filter((box) => box.checked).length;
  const place = document.getElementById('ticked');
  if (place) place.textContent = many ? `(${many})` : '';
}
let lastTick = null;
document.addEventListener('click', (event) => {
  const box = event.target;
  if (!(box instanceof HTMLInputElement) || box.name !== 'entry') return;
  if (event.shiftKey && lastTick) {
    const all = ticks();
    const [from, to] = [all.indexOf(lastTick), all.indexOf(box)].sort((a, b) => a - b);
    all.slice(from, to + 1).forEach((one) => { one.checked = box.checked; });
  }
  lastTick = box;
  countTicks();
});
countTicks();

// Keys: off while somebody types, and for good if he says so on the help page.
const keys = document.getElementById('keys');
if (keys) {
  keys.disabled = false;
  keys.checked = remembered.get('keys', 'on') === 'on';
  keys.addEventListener('change', () => remembered.set('keys', keys.checked ? 'on' : 'off'));
}
let place = -1;
let going = false;
function step(by) {
  const list = [...document.querySelectorAll('[data-key]')];
  if (!list.length) return;
  list[place]?.classList.remove('here');
  place = Math.max(0, Math.min(list.length - 1, place + by));
  list[place].classList.add('here');
  list[place].querySelector('a')?.focus({ preventScroll: true });
  list[place].scrollIntoView({ block: 'nearest' });
}
const GOES = { o: '/', e: '/entries', b: '/groups', r: '/runners', t: '/topology', c: '/configuration', a: '/acts' };
const KEYS = {
  j: () => step(1),
  k: () => step(-1),
  x: () => document.querySelectorAll('[data-key]')[place]?.querySelector('input[type=checkbox]')?.click(),
  a: () => { const all = ticks(); const on = all.some((box) => !box.checked); all.forEach((box) => { box.checked = on; }); countTicks(); },
  '/': () => document.getElementById('filter')?.focus(),
  '?': () => { location.href = '/help'; },
  g: () => { going = true; },
};
document.addEventListener('keydown', (event) => {
  const typing = event.target instanceof HTMLElement && event.target.matches('input:not([type=checkbox]):not([type=radio]), select, textarea, [contenteditable]');
  if (typing || event.ctrlKey || event.metaKey || event.altKey || remembered.get('keys', 'on') !== 'on') return;
  if (going) {
    going = false;
    if (GOES[event.key]) { event.preventDefault(); location.href = GOES[event.key]; }
    return;
  }
  if (KEYS[event.key]) { event.preventDefault(); KEYS[event.key](); }
});
