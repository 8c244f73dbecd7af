//! The till on a terminal: a table that follows the stock, a line that says how fresh it is, keys that sell.

use std::{
    io::{Write as _, stdout},
    time::Duration,
};

use crossterm::{
    cursor::{Hide, MoveTo, Show},
    event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers, poll, read},
    execute, queue,
    style::{Attribute, Print, SetAttribute},
    terminal::{Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode, size},
};
use mstore_client::{Client, Product, Query};
use mstore_protocol::Quantity;
use tokio::sync::mpsc;

use super::{
    command::Command,
    run::{act, status_line},
};
use crate::failure::Failure;

/// The table is drawn again at least this often, so that staleness counts on.
const REDRAW_EVERY: Duration = Duration::from_millis(500);
const KEYS: &str = "↑↓ choose   Enter sells one   r takes one back   o network off/on   : a command line   q quits";

/// Puts the terminal back whatever happens.
struct Terminal;

impl Terminal {
    fn enter() -> std::io::Result<Self> {
        enable_raw_mode()?;
        execute!(stdout(), EnterAlternateScreen, Hide)?;
        Ok(Self)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = execute!(stdout(), Show, LeaveAlternateScreen);
        let _ = disable_raw_mode();
    }
}

/// What is on the screen besides the till's data.
#[derive(Default)]
struct View {
    chosen: usize,
    top: usize,
    said: String,
    typing: Option<String>,
}

/// Runs until `q`.
pub(super) async fn run(till: &Client) -> Result<(), Failure> {
    let broken = |error: std::io::Error| Failure::unavailable(format!("the terminal: {error}"));
    let terminal = Terminal::enter().map_err(broken)?;
    let mut keys = key_presses();
    let (mut view, mut status) = (View::default(), till.watch_status());
    let mut applied = till.applied();
    loop {
        let products = till.products(&Query { limit: 1_000, ..Query::default() }).unwrap_or_default();
        view.draw(till, &products).map_err(broken)?;
        tokio::select! {
            key = keys.recv() => {
                let Some(key) = key else { break };
                if view.press(till, &products, key).await {
                    break;
                }
            }
            _ = status.changed() => {}
            _ = applied.recv() => {}
            () = tokio::time::sleep(REDRAW_EVERY) => {}
        }
    }
    drop(terminal);
    Ok(())
}

/// Keys, read on a thread of their own because reading them blocks.
fn key_presses() -> mpsc::Receiver<KeyEvent> {
    let (send, receive) = mpsc::channel(16);
    std::thread::spawn(move || {
        while !send.is_closed() {
            // Looks up now and then, so that the thread ends with the till.
            if !poll(REDRAW_EVERY).unwrap_or(false) {
                continue;
            }
            if let Ok(Event::Key(key)) = read()
                && key.kind == KeyEventKind::Press
                && send.blocking_send(key).is_err()
            {
                return;
            }
        }
    });
    receive
}

impl View {
    /// True when the till is to be left.
    async fn press(&mut self, till: &Client, products: &[Product], key: KeyEvent) -> bool {
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return true;
        }
        if let Some(line) = self.typing.take() {
            return self.type_on(till, line, key.code).await;
        }
        let chosen = products.get(self.chosen).map(|product| product.id.clone());
        let one = Quantity::from_units(1);
        let command = match (key.code, chosen) {
            (KeyCode::Char('q'), _) => return true,
            (KeyCode::Up, _) => return self.choose(self.chosen.saturating_sub(1), products),
            (KeyCode::Down, _) => return self.choose(self.chosen + 1, products),
            (KeyCode::Char(':'), _) => {
                self.typing = Some(String::new());
                return false;
            }
            (KeyCode::Char('o'), _) => Command::Online(!till.is_online()),
            (KeyCode::Enter, Some(id)) => Command::Sell(id, one),
            (KeyCode::Char('r'), Some(id)) => Command::TakeBack(id, one),
            (_, _) => return false,
        };
        self.said = act(till, command).await;
        false
    }

    fn choose(&mut self, chosen: usize, products: &[Product]) -> bool {
        self.chosen = chosen.min(products.len().saturating_sub(1));
        false
    }

    async fn type_on(&mut self, till: &Client, mut line: String, key: KeyCode) -> bool {
        if key == KeyCode::Enter {
            match Command::parse(&line) {
                Ok(Command::Quit) => return true,
                Ok(command) => self.said = act(till, command).await,
                Err(why) => self.said = format!("? {why}"),
            }
            return false;
        }
        if key == KeyCode::Esc {
            return false;
        }
        if key == KeyCode::Backspace {
            line.pop();
        } else if let KeyCode::Char(letter) = key {
            line.push(letter);
        }
        self.typing = Some(line);
        false
    }

    fn draw(&mut self, till: &Client, products: &[Product]) -> std::io::Result<()> {
        let (columns, lines) = size()?;
        let (width, room) = (usize::from(columns), usize::from(lines).saturating_sub(7).max(1));
        self.top = self.top.min(self.chosen).max((self.chosen + 1).saturating_sub(room));
        let enrolment = till.enrolment();
        let mut screen = vec![
            format!(
                "till {}   {}/{}   {}",
                enrolment.device_id,
                enrolment.merchant,
                enrolment.branch,
                if till.is_online() { "" } else { "NETWORK SWITCHED OFF" }
            ),
            status_line(&till.status()),
            String::new(),
            format!("{:<16} {:>10} {:>9} {:>20}  name", "product", "stock", "unsent", "price"),
        ];
        screen.extend(products.iter().skip(self.top).take(room).map(product_line));
        let mut out = stdout();
        queue!(out, MoveTo(0, 0), Clear(ClearType::All))?;
        for (n, line) in screen.iter().enumerate() {
            let is_chosen = n >= 4 && n - 4 + self.top == self.chosen;
            let look = if is_chosen { Attribute::Reverse } else { Attribute::Reset };
            queue!(
                out,
                MoveTo(0, u16::try_from(n).unwrap_or(0)),
                SetAttribute(look),
                Print(cut(line, width)),
                SetAttribute(Attribute::Reset)
            )?;
        }
        let said = self.said.lines().next().unwrap_or_default();
        let bottom = self.typing.as_ref().map_or_else(|| KEYS.to_owned(), |line| format!(":{line}▏"));
        queue!(
            out,
            MoveTo(0, lines.saturating_sub(2)),
            Print(cut(said, width)),
            MoveTo(0, lines.saturating_sub(1)),
            Print(cut(&bottom, width))
        )?;
        out.flush()
    }
}

fn product_line(product: &Product) -> String {
    let pending = product.stock - product.server_stock;
    let pending = if pending == Quantity::ZERO { String::new() } else { pending.to_string() };
    let price = product.price.map_or_else(|| "-".to_owned(), |price| price.to_string());
    format!("{:<16} {:>10} {pending:>9} {price:>20}  {}", product.id, product.stock.to_string(), product.name)
}

fn cut(line: &str, width: usize) -> String {
    line.chars().take(width).collect()
}
