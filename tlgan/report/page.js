// What a person can do on the page: copy, play the film, enlarge pictures, print with everything open.

async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = html("textarea", { class: "unseen" });
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

function setUpCopy(button) {
  const label = button.tagName === "BUTTON" ? button : button.querySelector("text");
  const before = label.textContent;
  let timer = 0;
  const copy = async () => {
    await copyText(button.dataset.copy);
    label.textContent = "Copied";
    document.getElementById("said").textContent = "Copied";
    clearTimeout(timer);
    timer = setTimeout(() => {
      label.textContent = before;
      document.getElementById("said").textContent = "";
    }, 1400);
  };
  button.addEventListener("click", copy);
  if (button.tagName !== "BUTTON") {
    button.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      copy();
    });
  }
}

function setUpFilm(film) {
  const frames = [...film.querySelectorAll(".frame")];
  const slider = film.querySelector("input");
  const play = film.querySelector(".play");
  if (!slider) return;
  let timer = null;
  const show = (i) => {
    frames.forEach((frame, k) => frame.classList.toggle("on", k === i));
    slider.value = i;
    const caption = frames[i].querySelector("figcaption").textContent;
    film.querySelector("output").textContent = caption;
    slider.setAttribute("aria-valuetext", caption);
  };
  const stop = () => {
    clearInterval(timer);
    timer = null;
    play.classList.remove("on");
    play.setAttribute("aria-label", "Play");
  };
  const next = () => {
    if (Number(slider.value) >= frames.length - 1) return stop();
    show(Number(slider.value) + 1);
  };
  slider.addEventListener("input", () => {
    stop();
    show(Number(slider.value));
  });
  play.addEventListener("click", () => {
    if (timer) return stop();
    if (Number(slider.value) >= frames.length - 1) show(0);
    timer = setInterval(next, Math.max(90, Math.min(400, 6000 / frames.length)));
    play.classList.add("on");
    play.setAttribute("aria-label", "Pause");
  });
  show(Number(slider.value)); // a reloaded page may keep the slider's place
}

function setUpViewer() {
  const viewer = document.getElementById("viewer");
  const [image, caption] = [viewer.querySelector("img"), viewer.querySelector("p")];
  const buttons = [...document.querySelectorAll("button.zoom")];
  let at = 0;
  const show = (i) => {
    at = (i + buttons.length) % buttons.length;
    const shown = buttons[at].querySelector("img");
    image.src = shown.src;
    image.alt = shown.alt;
    caption.textContent = buttons[at].dataset.caption;
  };
  buttons.forEach((button, i) => {
    button.addEventListener("click", () => {
      show(i);
      viewer.showModal();
    });
  });
  viewer.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) show(at + step);
  });
  viewer.addEventListener("click", (event) => {
    if (event.target === viewer || event.target === image || event.target.classList.contains("close")) viewer.close();
  });
}

function setUpPrint() {
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const fold of opened) fold.open = true;
  });
  addEventListener("afterprint", () => {
    for (const fold of opened) fold.open = false;
  });
}

function setUpNavigation() {
  const links = [...document.querySelectorAll("nav a")];
  const seen = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        for (const link of links) link.classList.toggle("here", link.hash === `#${entry.target.id}`);
      }
    },
    { rootMargin: "-20% 0px -75% 0px" },
  );
  for (const section of document.querySelectorAll("main > section")) seen.observe(section);
}

// One part that fails must not take the others with it.
const attempt = (setUp) => (element) => {
  try {
    setUp(element);
  } catch (error) {
    console.error(error);
  }
};

document.querySelectorAll("[data-copy]").forEach(attempt(setUpCopy));
document.querySelectorAll(".film").forEach(attempt(setUpFilm));
document.querySelectorAll(".chart[data-run]").forEach(attempt((figure) => new Chart(figure)));
document.querySelectorAll(".chart.parallel").forEach(attempt((figure) => new Parallel(figure)));
[setUpViewer, setUpPrint, setUpNavigation].forEach((setUp) => attempt(setUp)());
