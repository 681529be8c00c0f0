//! A plain line plot as SVG: one or more series over time. Pure.

use std::fmt::Write as _;

/// A line of the plot.
#[derive(Clone, Debug)]
pub struct Series {
    /// Its name.
    pub name: String,
    /// Its colour, as SVG writes it.
    pub colour: &'static str,
    /// One value a bin.
    pub values: Vec<f64>,
}

/// What stands around the lines.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Above the plot.
    pub title: String,
    /// Below it.
    pub x: String,
    /// Beside it.
    pub y: String,
    /// Seconds a bin.
    pub bin_seconds: f64,
    /// A value to mark with a dashed line, and what it is.
    pub mark: Option<(f64, String)>,
}

/// The bars of one colour: one value at each place, where there is one.
#[derive(Clone, Debug)]
pub struct Bars {
    /// What they are of.
    pub name: String,
    /// How high they are.
    pub values: Vec<Option<f64>>,
}

/// Colours that go together on white and on dark paper, also for those who do not tell red from green.
pub const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#56b4e9", "#009e73", "#cc79a7", "#e69f00"];

/// Draws the series as steps, each bin as wide as it lasts.
pub fn svg(frame: &Frame, series: &[Series]) -> String {
    let bins = series.iter().map(|line| line.values.len()).max().unwrap_or(0).max(1);
    let most = series.iter().flat_map(|line| &line.values).copied().fold(0.0, f64::max).max(1e-9);
    let step = nice_step(most / 4.0);
    let top = (most / step).ceil() * step;
    let x = |bin: usize| LEFT + (WIDTH - LEFT - RIGHT) * bin as f64 / bins as f64;
    let y = |value: f64| HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top;

    let mut out = String::new();
    let _ = writeln!(
        out,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="13">
<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>
<text x="{LEFT}" y="24" font-size="16">{}</text>"##,
        escaped(&frame.title)
    );

    let mut tick = 0.0;
    while tick <= top + step / 2.0 {
        let at = y(tick);
        let _ = writeln!(
            out,
            r##"<path d="M{LEFT} {at:.1}H{:.1}" stroke="#dddddd"/><text x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"##,
            WIDTH - RIGHT,
            LEFT - 8.0,
            at + 4.0,
            (tick * 1000.0).round() / 1000.0
        );
        tick += step;
    }
    let seconds = bins as f64 * frame.bin_seconds;
    for second in 0..=seconds.floor() as usize {
        let at = LEFT + (WIDTH - LEFT - RIGHT) * second as f64 / seconds;
        let below = HEIGHT - BOTTOM + 18.0;
        let _ = writeln!(out, r#"<text x="{at:.1}" y="{below:.1}" text-anchor="middle">{second}</text>"#);
    }
    let _ = writeln!(
        out,
        r#"<text x="{:.1}" y="{:.1}" text-anchor="middle">{}</text>
<text x="16" y="{:.1}" text-anchor="middle" transform="rotate(-90 16 {:.1})">{}</text>"#,
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 8.0,
        escaped(&frame.x),
        (TOP + HEIGHT - BOTTOM) / 2.0,
        (TOP + HEIGHT - BOTTOM) / 2.0,
        escaped(&frame.y)
    );

    if let Some((value, what)) = &frame.mark {
        let at = y(*value);
        let _ = writeln!(
            out,
            r##"<path d="M{LEFT} {at:.1}H{:.1}" stroke="#555555" stroke-dasharray="6 4"/><text x="{:.1}" y="{:.1}" text-anchor="end" fill="#555555">{}</text>"##,
            WIDTH - RIGHT,
            WIDTH - RIGHT,
            at - 6.0,
            escaped(what)
        );
    }
    for (nth, line) in series.iter().enumerate() {
        let mut path = String::new();
        for (bin, &value) in line.values.iter().enumerate() {
            let _ = match bin {
                0 => write!(path, "M{:.1} {:.1}H{:.1}", x(0), y(value), x(1)),
                _ => write!(path, "V{:.1}H{:.1}", y(value), x(bin + 1)),
            };
        }
        let (legend_x, legend_y) = (LEFT + 10.0 + 150.0 * nth as f64, TOP - 12.0);
        let _ = writeln!(
            out,
            r#"<path d="{path}" fill="none" stroke="{}" stroke-width="2" stroke-linejoin="round"/>
<path d="M{legend_x} {:.1}h24" stroke="{}" stroke-width="3"/><text x="{:.1}" y="{legend_y}">{}</text>"#,
            line.colour,
            legend_y - 4.0,
            line.colour,
            legend_x + 32.0,
            escaped(&line.name)
        );
    }
    out.push_str("</svg>\n");
    out
}

/// Draws bars side by side at each place, with their values on them.
pub fn bars(title: &str, places: &[&str], bars: &[Bars]) -> String {
    let values = bars.iter().flat_map(|bars| &bars.values).flatten();
    let top = values.copied().fold(0.0, f64::max).max(1e-9) * 1.1;
    let place = (WIDTH - LEFT - RIGHT) / places.len().max(1) as f64;
    let wide = place * 0.85 / bars.len().max(1) as f64;
    let floor = HEIGHT - BOTTOM;
    let mut out = String::new();
    let _ = writeln!(
        out,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="13">
<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>
<text x="{LEFT}" y="24" font-size="16">{}</text>
<path d="M{LEFT} {floor}H{:.1}" stroke="#555555"/>"##,
        escaped(title),
        WIDTH - RIGHT
    );
    for (nth, name) in places.iter().enumerate() {
        let x = LEFT + place * (nth as f64 + 0.425);
        let below = floor + 18.0;
        let _ =
            writeln!(out, r#"<text x="{x:.1}" y="{below:.1}" text-anchor="middle">{}</text>"#, escaped(name));
    }
    for (kind, bars) in bars.iter().enumerate() {
        let colour = COLOURS[kind % COLOURS.len()];
        for (nth, value) in bars.values.iter().enumerate() {
            let Some(value) = value else { continue };
            let x = LEFT + place * nth as f64 + wide * kind as f64;
            let high = (floor - TOP) * value / top;
            let (y, middle, above) = (floor - high, x + wide / 2.0, floor - high - 4.0);
            let _ = writeln!(
                out,
                r#"<rect x="{x:.1}" y="{y:.1}" width="{:.1}" height="{high:.1}" fill="{colour}"/><text x="{middle:.1}" y="{above:.1}" text-anchor="middle" font-size="11">{value:.0}</text>"#,
                wide - 2.0
            );
        }
        let (x, y) = (LEFT + 150.0 * kind as f64, TOP - 24.0);
        let _ = writeln!(
            out,
            r#"<rect x="{x}" y="{y}" width="14" height="12" fill="{colour}"/><text x="{}" y="{}">{}</text>"#,
            x + 20.0,
            y + 11.0,
            escaped(&bars.name)
        );
    }
    out.push_str("</svg>\n");
    out
}

/// 1, 2 or 5 times a power of ten, not below the value.
fn nice_step(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    let lead = [1.0, 2.0, 5.0, 10.0].into_iter().find(|lead| lead * power >= value * (1.0 - 1e-9));
    lead.unwrap_or(10.0) * power
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 52.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round() {
        assert_eq!([0.03, 0.25, 1.0, 7.0].map(nice_step), [0.05, 0.5, 1.0, 10.0]);
    }

    #[test]
    fn every_series_is_drawn_and_text_is_escaped() {
        let line = |name: &str| Series { name: name.to_owned(), colour: COLOURS[0], values: vec![1.0, 2.0] };
        let frame = Frame {
            title: "a < b".to_owned(),
            x: "s".to_owned(),
            y: "MB".to_owned(),
            bin_seconds: 0.1,
            mark: Some((1.5, "rate".to_owned())),
        };
        let text = svg(&frame, &[line("one"), line("two")]);
        assert!(text.contains("a &lt; b") && text.contains(">one<") && text.contains(">two<"));
        assert_eq!(text.matches("stroke-linejoin").count(), 2);
    }

    #[test]
    fn every_value_has_its_bar_and_what_is_missing_has_none() {
        let bars = [
            Bars { name: "one".to_owned(), values: vec![Some(100.0), Some(50.0)] },
            Bars { name: "t<wo".to_owned(), values: vec![Some(80.0), None] },
        ];
        let text = super::bars("title", &["here", "there"], &bars);
        // The paper, two in the legend, three values.
        assert_eq!(text.matches("<rect").count(), 6);
        assert!(text.contains(">80<") && text.contains("t&lt;wo"));
    }
}
