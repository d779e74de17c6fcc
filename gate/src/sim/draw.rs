//! The arm on a terminal: who moves it, energy, latch, and where it is.

use super::inputs::Inputs;
use super::{Arm, Status};
use crate::device::words::selection;
use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::canvas::{Canvas, Circle, Line as Stroke};
use ratatui::widgets::{Block, Paragraph, Widget};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use trocar_proto::handover::device_wire::Actuated;
use trocar_proto::handover::types::Selection;

/// Time between two pictures.
const PICTURE: Duration = Duration::from_millis(33);

/// What is drawn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Snapshot {
    pub(super) status: Status,
    pub(super) arm: Arm,
    pub(super) actuated: Option<Actuated>,
    pub(super) refusals: u32,
    pub(super) lost: u64,
}

/// The thread that draws.
pub(super) struct Screen {
    newest: Arc<Mutex<Option<Snapshot>>>,
    inputs: Inputs,
    thread: Option<JoinHandle<()>>,
}

impl Screen {
    pub(super) fn start(address: SocketAddr, inputs: Inputs) -> io::Result<Self> {
        let newest: Arc<Mutex<Option<Snapshot>>> = Arc::default();
        let (theirs, keys) = (Arc::clone(&newest), inputs.clone());
        let thread = thread::Builder::new().name("sim-draw".into()).spawn(move || {
            if let Err(error) = run(address, &keys, &theirs) {
                tracing::error!(%error, "cannot draw");
            }
            ratatui::restore();
        })?;
        Ok(Self { newest, inputs, thread: Some(thread) })
    }

    /// Hands over what to draw, unless the last one is still being looked at: the device does not wait.
    pub(super) fn show(&self, snapshot: impl FnOnce() -> Snapshot) {
        if let Ok(mut newest) = self.newest.try_lock()
            && newest.is_none()
        {
            *newest = Some(snapshot());
        }
    }
}

impl Drop for Screen {
    /// The terminal is as it was before.
    fn drop(&mut self) {
        self.inputs.stop();
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn run(address: SocketAddr, inputs: &Inputs, newest: &Mutex<Option<Snapshot>>) -> io::Result<()> {
    let foot = format!("{address}   o override to local   k push the camera   q quit");
    let mut terminal = ratatui::try_init()?;
    while !inputs.stops() {
        let snapshot = newest.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(snapshot) = snapshot {
            terminal.draw(|frame| draw(frame, &foot, &snapshot))?;
        }
        if event::poll(PICTURE)?
            && let Event::Key(key) = event::read()?
        {
            let ctrl_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
            match key.code {
                _ if ctrl_c => inputs.stop(),
                KeyCode::Char('q') => inputs.stop(),
                KeyCode::Char('o') => inputs.press_override(),
                KeyCode::Char('k') => inputs.push_camera(),
                _ => {}
            }
        }
    }
    Ok(())
}

/// One picture. `foot` is the last line.
pub(super) fn draw(frame: &mut Frame<'_>, foot_line: &str, snapshot: &Snapshot) {
    let [head, middle, foot] =
        Layout::vertical([Constraint::Length(3), Constraint::Min(8), Constraint::Length(4)]).areas(frame.area());
    frame.render_widget(
        Paragraph::new(banner(&snapshot.status)).centered().block(Block::bordered().title("simulated device")),
        head,
    );
    let arm = snapshot.arm;
    let colour = colour(&snapshot.status);
    let [middle, above] = Layout::horizontal([Constraint::Fill(3), Constraint::Fill(2)]).areas(middle);
    let canvas = Canvas::default()
        .block(Block::bordered().title("seen from the side: x to the right, z up"))
        .marker(Marker::Braille)
        .x_bounds([-200.0, 200.0])
        .y_bounds([-100.0, 200.0])
        .paint(move |ctx| {
            let [(x0, y0), (x1, y1), (x2, y2)] = joints(&arm);
            ctx.draw(&Stroke { x1: -60.0, y1: -100.0, x2: 60.0, y2: -100.0, color: Color::Gray });
            ctx.draw(&Stroke { x1: x0, y1: y0, x2: x1, y2: y1, color: colour });
            ctx.draw(&Stroke { x1, y1, x2, y2, color: colour });
            ctx.draw(&Circle { x: x1, y: y1, radius: 4.0, color: colour });
            let open = 4.0 + 10.0 * (1.0 - f64::from(arm.grip) / 10_000.0);
            for side in [-open, open] {
                ctx.draw(&Stroke { x1: x2, y1: y2, x2: x2 + side, y2: y2 - 14.0, color: colour });
            }
        });
    frame.render_widget(canvas, middle);
    frame.render_widget(from_above(&arm, colour), above);
    frame.render_widget(Paragraph::new(figures(foot_line, snapshot)), foot);
}

/// The tip in its reach, from above.
fn from_above(arm: &Arm, color: Color) -> impl Widget {
    let [x, y, ..] = arm.axes.map(|place| f64::from(place) / 1_000.0);
    Canvas::default()
        .block(Block::bordered().title("from above: x, y"))
        .marker(Marker::Braille)
        .x_bounds([-160.0, 160.0])
        .y_bounds([-160.0, 160.0])
        .paint(move |ctx| {
            ctx.draw(&Stroke { x1: -150.0, y1: 0.0, x2: 150.0, y2: 0.0, color: Color::DarkGray });
            ctx.draw(&Stroke { x1: 0.0, y1: -150.0, x2: 0.0, y2: 150.0, color: Color::DarkGray });
            ctx.draw(&Circle { x, y, radius: 12.0, color });
            ctx.draw(&Circle { x, y, radius: 6.0, color });
        })
}

/// Base, elbow and tip of a two-part arm whose tip is at x and z, in millimetres; both parts are 170 mm long.
fn joints(arm: &Arm) -> [(f64, f64); 3] {
    let [x, _, z, ..] = arm.axes.map(|place| f64::from(place) / 1_000.0);
    let (base, tip) = ((0.0, -100.0), (x, z + 60.0));
    let (dx, dy) = (tip.0 - base.0, tip.1 - base.1);
    let way = dx.hypot(dy).clamp(1.0, 340.0);
    let out = (170.0_f64.powi(2) - (way / 2.0).powi(2)).max(0.0).sqrt();
    let elbow = (base.0 + dx / 2.0 - dy / way * out, base.1 + dy / 2.0 + dx / way * out);
    [base, elbow, tip]
}

fn banner(status: &Status) -> Line<'static> {
    let who = match (status.selected, status.overridden) {
        (Selection::Local, true) => "LOCAL, by the hardware override",
        (Selection::Local, false) => "LOCAL moves it",
        (Selection::Remote, _) if status.latched => "HOLD, latched by the watchdog",
        (Selection::Remote, _) if status.held => "REMOTE, stopped",
        (Selection::Remote, _) => "REMOTE moves it",
        (Selection::Nobody, _) => "NOBODY moves it",
    };
    let mut spans = vec![Span::styled(who, Style::new().fg(colour(status)).add_modifier(Modifier::BOLD))];
    if status.energy {
        let style = Style::new().fg(Color::Black).bg(Color::Yellow).add_modifier(Modifier::BOLD);
        spans.extend([Span::raw("   "), Span::styled(" ENERGY ON ", style)]);
    }
    Line::from(spans)
}

const fn colour(status: &Status) -> Color {
    match status.selected {
        Selection::Local => Color::Green,
        Selection::Remote if status.latched => Color::Red,
        Selection::Remote => Color::Cyan,
        Selection::Nobody => Color::Gray,
    }
}

fn figures(foot: &str, snapshot: &Snapshot) -> Vec<Line<'static>> {
    let Snapshot { status, arm, actuated, refusals, lost } = snapshot;
    let [x, y, z, roll, pitch, yaw] = arm.axes.map(f64::from);
    let newest = actuated.map_or_else(|| "none".into(), |a| format!("fence {} sequence {}", a.fence.0, a.sequence));
    let gate = status.owner.map_or_else(|| "none".into(), |boot| format!("{:08x}…", boot.0 >> 96));
    vec![
        Line::from(format!(
            "x {:7.2} y {:7.2} z {:7.2} mm   roll {:6.2} pitch {:6.2} yaw {:6.2}°   grip {:3} %",
            x / 1e3,
            y / 1e3,
            z / 1e3,
            roll / 1e2,
            pitch / 1e2,
            yaw / 1e2,
            arm.grip / 100
        )),
        Line::from(format!("selected {}   fence {}   gate {gate}", selection(status.selected), status.highest.0)),
        Line::from(format!("newest command {newest}   refused {refusals}   record lines lost {lost}")),
        Line::from(foot.to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use trocar_proto::handover::types::Epoch;

    fn screen(status: Status) -> String {
        let mut terminal = Terminal::new(TestBackend::new(90, 24)).unwrap();
        let arm = Arm::default();
        let snapshot = Snapshot { status, arm, actuated: None, refusals: 3, lost: 0 };
        terminal.draw(|frame| draw(frame, "q quit", &snapshot)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn the_screen_says_who_moves_the_arm_and_shows_energy_and_latch() {
        let status = Status {
            selected: Selection::Remote,
            latched: false,
            overridden: false,
            energy: true,
            held: false,
            highest: Epoch(7),
            owner: None,
        };
        let moving = screen(status);
        assert!(
            moving.contains("REMOTE moves it") && moving.contains("ENERGY ON") && moving.contains("fence 7"),
            "{moving}"
        );
        let latched = screen(Status { latched: true, energy: false, ..status });
        assert!(latched.contains("HOLD, latched by the watchdog") && !latched.contains("ENERGY"), "{latched}");
        let taken = screen(Status { selected: Selection::Local, overridden: true, ..status });
        assert!(taken.contains("LOCAL, by the hardware override"), "{taken}");
    }

    #[test]
    fn the_tip_of_the_drawn_arm_is_where_the_arm_is() {
        let mut arm = Arm::default();
        arm.axes = [50_000, 0, -20_000, 0, 0, 0];
        let [(bx, by), (ex, ey), (tx, ty)] = joints(&arm);
        assert_eq!((tx, ty), (50.0, 40.0));
        for way in [(ex - bx).hypot(ey - by), (tx - ex).hypot(ty - ey)] {
            assert!((way - 170.0).abs() < 1e-9, "{way}");
        }
    }
}
