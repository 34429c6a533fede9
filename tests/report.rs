//! The page of `rbc report`, used in a real browser: headless Chromium, driven over WebDriver.

mod support;

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};
use support::{Bench, need};

/// The name under which WebDriver hands out elements (W3C WebDriver, 12.1).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
const RIGHT: &str = "\u{e014}";
const ENTER: &str = "\u{e007}";

/// Chromium under the control of this test.
struct Browser {
    driver: Child,
    session: String,
    _profile: tempfile::TempDir,
}

impl Browser {
    fn start() -> Self {
        need("chromium", "chromium");
        need("chromedriver", "chromium-driver");
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver starts");
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = lines
            .find_map(|line| {
                let line = line.ok()?;
                let port = line.split_once("started successfully on port ")?.1;
                port.trim_end_matches('.').parse::<u16>().ok()
            })
            .expect("chromedriver says its port");
        // It goes on talking, and must be able to.
        std::thread::spawn(move || lines.for_each(drop));
        let profile = tempfile::tempdir().unwrap();
        let server = format!("http://127.0.0.1:{port}/session");
        let mut browser = Self { driver, session: server, _profile: profile };
        let args = [
            "--headless".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--window-size=1200,900".to_owned(),
            format!("--user-data-dir={}", browser._profile.path().display()),
        ];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": { "args": args, "binary": "/usr/bin/chromium" },
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let session =
            browser.post("", &wanted)["sessionId"].as_str().expect("a session").to_owned();
        browser.session = format!("{}/{session}", browser.session);
        browser
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let agent: ureq::Agent =
            ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let mut answer = agent
            .post(format!("{}{path}", self.session))
            .header("Content-Type", "application/json")
            .send(body.to_string())
            .unwrap_or_else(|e| panic!("{path}: {e}"));
        let text = answer.body_mut().read_to_string().expect("an answer");
        let answer: Value = serde_json::from_str(&text).expect("JSON");
        assert!(answer["value"].get("error").is_none(), "{path} {body}: {answer}");
        answer["value"].clone()
    }

    fn open(&self, page: &Path) {
        self.post("/url", &json!({ "url": format!("file://{}", page.display()) }));
    }

    /// The value of a JavaScript expression.
    fn value(&self, expression: &str) -> Value {
        let script = format!("return ({expression});");
        self.post("/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Makes the browser prefer light or dark pages.
    fn scheme(&self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        let params = json!({ "features": features });
        let command = json!({ "cmd": "Emulation.setEmulatedMedia", "params": params });
        self.post("/goog/cdp/execute", &command);
    }

    fn element(&self, selector: &str) -> String {
        let found = self.post("/element", &json!({ "using": "css selector", "value": selector }));
        format!("/element/{}", found[ELEMENT].as_str().expect("an element"))
    }

    fn click(&self, selector: &str) {
        self.post(&format!("{}/click", self.element(selector)), &json!({}));
    }

    fn press(&self, selector: &str, keys: &str) {
        self.post(&format!("{}/value", self.element(selector)), &json!({ "text": keys }));
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = ureq::delete(&self.session).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// What is hard to see: texts with less than 4.5 times, marks with less than 3 times the luminance of
/// what they stand on, as WCAG 2 counts it.
const HARD_TO_SEE: &str = "(() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const luminance = (colour) => numbers(colour).slice(0, 3)
    .map((c) => c / 255).map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, at) => sum + c * [0.2126, 0.7152, 0.0722][at], 0);
  const contrast = (a, b) => {
    const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
    return (high + 0.05) / (low + 0.05);
  };
  const isClear = (colour) => colour === 'none' || numbers(colour)[3] === 0;
  const style = (one) => getComputedStyle(one);
  const behind = (one) => {
    while (one && isClear(style(one).backgroundColor)) one = one.parentElement;
    return one ? style(one).backgroundColor : 'rgb(255, 255, 255)';
  };
  const lane = document.querySelector('svg.graph .lane');
  const found = [];
  const tell = (what, one, ratio, least) => {
    if (!(ratio >= least)) found.push(`${what} ${one.textContent.slice(0, 40)}: ${ratio.toFixed(2)}`);
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let texts = 0;
  while (walker.nextNode()) {
    const one = walker.currentNode.parentElement;
    const isShown = one.tagName === 'text' || one.getClientRects().length > 0;
    if (!walker.currentNode.data.trim() || !isShown) continue;
    if (['SCRIPT', 'STYLE', 'title'].includes(one.tagName)) continue;
    texts += 1;
    if (one.tagName === 'text') {
      const box = one.closest('.graph a')?.querySelector('.box') ?? (one.closest('.graph') && lane);
      const back = box ? style(box).fill : behind(one.closest('svg').parentElement);
      tell('text', one, contrast(style(one).fill, back), 4.5);
    } else {
      tell('text', one, contrast(style(one).color, behind(one)), 4.5);
    }
  }
  const marks = document.querySelectorAll('.box, .edge, .bar');
  for (const one of marks) {
    const back = one.closest('.graph') ? style(lane).fill : behind(one.closest('svg').parentElement);
    const colours = [style(one).stroke, style(one).fill].filter((colour) => !isClear(colour));
    tell('mark', one.parentElement, Math.max(...colours.map((c) => contrast(c, back))), 3);
  }
  for (const one of document.querySelectorAll('details, .legend li, .status, button')) {
    const colour = style(one).borderLeftColor;
    if (!isClear(colour)) tell('border', one, contrast(colour, behind(one.parentElement)), 3);
  }
  if (texts < 50 || marks.length < 5) found.push(`only ${texts} texts and ${marks.length} marks`);
  return found;
})()";

/// Text that does something wherever it is not escaped.
const HOSTILE: &str = "</title></script></pre><script>document.title=\"pwned\"</script><img src=x \
                       onerror=document.title=\"pwned\">";

fn page(bench: &Bench, dockerfile: &str) -> std::path::PathBuf {
    bench.write("c/Dockerfile", dockerfile);
    let _ = bench.rbc("build -q c");
    bench.rbc("report -o report.html").ok();
    bench.path("report.html").canonicalize().unwrap()
}

#[test]
fn the_page_is_used_by_mouse_and_keyboard() {
    let bench = Bench::with_busybox();
    bench.write("c/src/a.txt", "one");
    let dockerfile = "FROM busybox AS build\nRUN head -c 50000 /dev/zero > /big\nCOPY src /src\n\
                      RUN echo said; sleep 0.1; cp /big /twin\nFROM busybox AS app\nRUN sleep 0.2\n\
                      COPY --from=build /big /twin /app/\nRUN rm /app/big\n";
    page(&bench, dockerfile);
    bench.write("c/src/a.txt", "two");
    let page = page(&bench, &dockerfile.replace("echo said", "echo said so"));
    let browser = Browser::start();
    browser.open(&page);

    // Nothing is loaded, and the page's own rules forbid nothing of what it does itself.
    assert_eq!(browser.value("performance.getEntriesByType('resource').length"), 0);
    let log = browser.post("/se/log", &json!({ "type": "browser" }));
    assert_eq!(log, json!([]));

    // Each step is in the graph, the table and the details; what ran is in the timeline.
    let count = |selector: &str| {
        browser.value(&format!("document.querySelectorAll({selector:?}).length")).as_u64().unwrap()
    };
    let steps = count("table tr[data-state]");
    assert_eq!((count("svg.graph a"), count("details")), (steps, steps));
    let ran = count("tr[data-state=ran]");
    assert!(ran >= 2 && ran < steps, "{ran} of {steps}");
    assert_eq!(count("svg.timeline a"), ran);
    assert!(count("svg.timeline a.critical") >= 1);
    assert_eq!(count("details[open]"), 0);
    let text = browser.value("document.body.innerText").as_str().unwrap().to_owned();
    assert!(text.contains("src/a.txt changed: 7692c3ad3540 → 3fc4ccfe7458"), "{text}");

    // A click on a box opens the step.
    browser.click("svg.graph a.ran[aria-label*='said so']");
    assert_eq!(count("details[open]"), 1);
    let shown = browser.value("document.querySelector('details[open]').innerText");
    let shown = shown.as_str().unwrap();
    assert!(shown.contains("said so") && shown.contains("Log"), "{shown}");
    assert!(shown.contains("instruction changed from"), "{shown}");
    assert_eq!(browser.value("document.activeElement.tagName"), "SUMMARY");

    // The same by keyboard: to the next box, and into it.
    browser.value("document.querySelector('svg.graph a').focus()");
    browser.press("svg.graph a", RIGHT);
    let label = browser.value("document.activeElement.getAttribute('aria-label')");
    assert_eq!(
        label,
        browser.value("document.querySelectorAll('svg.graph a')[1].getAttribute('aria-label')")
    );
    browser.press("svg.graph a:nth-of-type(2)", ENTER);
    assert_eq!(browser.value("document.activeElement.closest('details').open"), true);

    // The filter says how many it shows.
    browser.click("button[data-show=ran]");
    assert_eq!(count("tr[data-state]:not([hidden])"), ran);
    let said = browser.value("document.querySelector('output').textContent");
    assert_eq!(said, format!("{ran} steps"));
    assert_eq!(
        browser.value("document.querySelector('[data-show=ran]').getAttribute('aria-pressed')"),
        "true"
    );
    browser.click("button[data-show=all]");
    assert_eq!(count("tr[data-state]:not([hidden])"), steps);

    // Every control has a name, every table headings, every picture a label.
    assert_eq!(count("svg:not([aria-label])"), 0);
    assert_eq!(count("a:not([href])"), 0);
    assert_eq!(count("table:not(:has(thead th[scope=col]))"), 0);
    let wide = browser.value("document.documentElement.scrollWidth > innerWidth");
    assert_eq!(wide, false, "the page itself never scrolls sideways");

    // On the narrowest screen that people use, which is a wide one at a zoom of 400 %, too.
    let narrow = json!({ "width": 320, "height": 600, "deviceScaleFactor": 1, "mobile": false });
    let command = json!({ "cmd": "Emulation.setDeviceMetricsOverride", "params": narrow });
    browser.post("/goog/cdp/execute", &command);
    assert_eq!(browser.value("innerWidth"), 320);
    let wide = browser.value("document.documentElement.scrollWidth > innerWidth");
    assert_eq!(wide, false, "not even then");
    browser.post(
        "/goog/cdp/execute",
        &json!({ "cmd": "Emulation.clearDeviceMetricsOverride", "params": {} }),
    );

    // Light and dark.
    let background = || browser.value("getComputedStyle(document.body).backgroundColor");
    browser.value("document.querySelectorAll('details').forEach((one) => one.open = true)");
    browser.scheme("light");
    let light = background();
    assert_eq!(browser.value(HARD_TO_SEE), json!([]));
    browser.scheme("dark");
    assert_ne!(background(), light);
    assert_eq!(browser.value(HARD_TO_SEE), json!([]));
}

#[test]
fn hostile_names_and_logs_stay_text() {
    let bench = Bench::with_busybox();
    let quoted = HOSTILE.replace('"', "\\\"");
    let page = page(
        &bench,
        &format!(
            "FROM busybox\nARG X='{HOSTILE}'\nRUN echo \"{quoted}\"; mkdir -p '/<img src=x>'; \
             echo x > '/<img src=x>/<script>x'\nRUN echo \"{quoted}\"; exit 3\n"
        ),
    );
    let browser = Browser::start();
    browser.open(&page);
    assert!(browser.value("document.title").as_str().unwrap().starts_with("Build of /"));
    assert_eq!(browser.value("document.scripts.length"), 1);
    assert_eq!(browser.value("document.images.length"), 0);
    // Failed steps too can be seen.
    assert_eq!(browser.value(HARD_TO_SEE), json!([]));
    browser.scheme("dark");
    assert_eq!(browser.value(HARD_TO_SEE), json!([]));
    let text = browser.value("document.body.textContent").as_str().unwrap().to_owned();
    assert!(text.contains(HOSTILE), "it is shown as it is:\n{text}");
    assert!(text.contains("✖ failed") && text.contains("exit code: 3"), "{text}");
    let log = browser.post("/se/log", &json!({ "type": "browser" }));
    assert_eq!(log, json!([]));
}
