// The door: a one-time token, from the address or typed, becomes a session.

import { isLoggedIn, logIn } from "/static/parts/api.js";

const form = document.querySelector("form");
const why = document.querySelector("#why");
const query = new URLSearchParams(location.search);
const given = query.get("token");
if (query.has("over")) why.textContent = "The session is over. A new one needs a one-time token.";

/** Go to the page if `attempt` succeeds; `otherwise` says why not. */
async function enter(attempt, otherwise) {
  try {
    if (await attempt()) {
      location.replace("/");
      return;
    }
    why.textContent = otherwise;
  } catch (error) {
    why.textContent = error.message;
  }
}

function use(token) {
  form.token.value = "";
  enter(() => logIn(token.trim()), "This token has been used or is too old.");
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  use(form.token.value);
});
if (given !== null) use(given);
else enter(isLoggedIn, why.textContent); // by another page's link somebody comes without the cookie
