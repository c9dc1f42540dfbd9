// What can be done with a container, as buttons.

import { post, remove } from "/static/parts/api.js";
import { button, confirmed, h, note } from "/static/parts/dom.js";

/** A container's name without the slash. */
export function nameOf(container) {
  return (container.Names ? container.Names[0] : container.Name).replace(/^\//, "");
}

/** The state as a coloured word. */
export function badge(state) {
  return h("span", { class: `badge ${state}` }, state);
}

/**
 * Buttons for a container: `about()` tells {id, name, state}, `done` is called after each action.
 * The returned element's `update()` shows those that its state permits.
 */
export function actions(about, done, { wide = false } = {}) {
  const act = (verb, past, query) => async (event) => {
    event.stopPropagation();
    const one = about();
    box.setAttribute("aria-busy", "true");
    try {
      if (verb === "remove") {
        const running = one.state === "running" || one.state === "paused";
        const question = `Remove container ${one.name}${running ? ", which is running" : ""}? What it wrote is lost.`;
        if (!(await confirmed(question, "Remove"))) return;
        await remove(`/containers/${one.id}`, { force: 1 });
      } else {
        await post(`/containers/${one.id}/${verb}`, query);
      }
      note(`${one.name}: ${past}`);
      done(verb);
    } catch (error) {
      note(error.message, "error");
    } finally {
      box.removeAttribute("aria-busy");
    }
  };
  const all = {
    start: button("start", "Start", act("start", "started"), { wide }),
    unpause: button("start", "Resume", act("unpause", "resumed"), { wide }),
    stop: button("stop", "Stop", act("stop", "stopped"), { wide }),
    restart: button("restart", "Restart", act("restart", "restarted"), { wide }),
    remove: button("remove", "Remove", act("remove", "removed"), { wide, kind: "danger" }),
  };
  const box = h("div", { class: "actions" }, ...Object.values(all));
  box.update = () => {
    const { state } = about();
    const running = state === "running" || state === "restarting";
    all.start.hidden = running || state === "paused";
    all.unpause.hidden = state !== "paused";
    all.stop.hidden = !running && state !== "paused";
    all.restart.hidden = !running;
  };
  return box;
}
