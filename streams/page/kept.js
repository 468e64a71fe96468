// What is kept for the next visit, or for the tab. A browser may refuse to keep anything: then it is kept for the page.

const here = new Map();

/** What was kept under a key; null without. place: "localStorage" or "sessionStorage". */
export function kept(place, key) {
  try {
    return window[place].getItem(key);
  } catch {
    return here.get(key) ?? null;
  }
}

/** Keep a text; null forgets it. */
export function keep(place, key, value) {
  try {
    if (value === null) window[place].removeItem(key);
    else window[place].setItem(key, value);
  } catch {
    here.set(key, value);
  }
}
