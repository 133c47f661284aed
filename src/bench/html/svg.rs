//! Bars, as SVG inside of a page: widths in percent and texts in the page's own size, so that they
//! can be read on a screen of any width.

use std::fmt::Write;

use crate::markup::escape;

/// Height of a bar with its line of text, in pixels.
const ROW: usize = 42;
/// Height of the line of numbers below the bars, in pixels.
const AXIS: usize = 22;

/// One bar.
#[derive(Clone, Debug)]
pub(super) struct Bar {
    pub(super) label: String,
    pub(super) value: f64,
    /// The value in words.
    pub(super) shown: String,
    /// Class of the style sheet: what kind of value it is.
    pub(super) class: &'static str,
    /// Least and most that was measured.
    pub(super) spread: Option<(f64, f64)>,
}

/// How values become widths.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scale {
    /// From 0 to this.
    Linear(f64),
    /// From the first power of ten to the second: a step is ten times as much.
    Log(i32, i32),
}

impl Scale {
    /// In percent of the whole width.
    fn percent(self, value: f64) -> f64 {
        let share = match self {
            Self::Linear(max) if max > 0.0 => value / max,
            Self::Linear(_) => 0.0,
            Self::Log(from, to) if value > 0.0 => (value.log10() - f64::from(from)) / f64::from(to - from),
            Self::Log(..) => 0.0,
        };
        (share * 100.0).clamp(0.0, 100.0)
    }
}

/// A chart of bars, one below the other.
pub(super) struct Chart<'a> {
    /// Unique on the page.
    pub(super) id: String,
    pub(super) title: &'a str,
    /// What can be seen, for those who cannot see it.
    pub(super) description: String,
    pub(super) bars: &'a [Bar],
    pub(super) scale: Scale,
    /// Values at which the scale has a line, with their words.
    pub(super) ticks: &'a [(f64, String)],
    /// A value that is marked through all bars.
    pub(super) mark: Option<f64>,
}

impl Chart<'_> {
    pub(super) fn svg(&self) -> String {
        let bottom = self.bars.len() * ROW;
        let id = escape(&self.id);
        let mut text = format!(
            "<svg role=\"img\" aria-labelledby=\"{id}-title {id}-desc\" height=\"{}\">\n\
             <title id=\"{id}-title\">{}</title>\n<desc id=\"{id}-desc\">{}</desc>\n",
            bottom + AXIS,
            escape(self.title),
            escape(&self.description)
        );
        let x = |value: f64| format!("{:.2}%", self.scale.percent(value));
        for (value, words) in self.ticks {
            let at = x(*value);
            let anchor = match self.scale.percent(*value) {
                percent if percent < 4.0 => " style=\"text-anchor:start\"",
                percent if percent > 94.0 => " style=\"text-anchor:end\"",
                _ => "",
            };
            let _ = writeln!(
                text,
                "<line class=\"grid\" x1=\"{at}\" x2=\"{at}\" y1=\"0\" y2=\"{bottom}\" />\
                 <text class=\"tick\" x=\"{at}\" y=\"{}\"{anchor}>{}</text>",
                bottom + 16,
                escape(words)
            );
        }
        for (index, bar) in self.bars.iter().enumerate() {
            self.bar(&mut text, index * ROW, bar);
        }
        if let Some(mark) = self.mark {
            let at = x(mark);
            let _ =
                writeln!(text, "<line class=\"mark\" x1=\"{at}\" x2=\"{at}\" y1=\"0\" y2=\"{bottom}\" />");
        }
        for (index, bar) in self.bars.iter().enumerate() {
            let strong =
                if matches!(bar.class, "limit" | "bound" | "wall") { " class=\"strong\"" } else { "" };
            let _ = writeln!(
                text,
                "<text x=\"0\" y=\"{y}\"{strong}>{}</text><text class=\"value\" x=\"100%\" y=\"{y}\">{}</text>",
                escape(&bar.label),
                escape(&bar.shown),
                y = index * ROW + 15
            );
        }
        text.push_str("</svg>\n");
        text
    }

    fn bar(&self, text: &mut String, top: usize, bar: &Bar) {
        let x = |value: f64| format!("{:.2}%", self.scale.percent(value));
        let _ = write!(
            text,
            "<rect class=\"track\" x=\"0\" y=\"{at}\" width=\"100%\" height=\"14\" rx=\"2\" />\
             <rect class=\"{}\" x=\"0\" y=\"{at}\" width=\"{}\" height=\"14\" rx=\"2\" />",
            bar.class,
            x(bar.value),
            at = top + 21,
        );
        if let Some((least, most)) = bar.spread {
            let (least, most) = (x(least), x(most));
            let _ = write!(
                text,
                "<line class=\"spread\" x1=\"{least}\" x2=\"{most}\" y1=\"{middle}\" y2=\"{middle}\" />",
                middle = top + 28
            );
        }
        text.push('\n');
    }
}

/// Round values from 0 to `max`, three to six of them.
pub(super) fn round_ticks(max: f64) -> Vec<f64> {
    if max <= 0.0 || !max.is_finite() {
        return vec![0.0];
    }
    let rough = max / 5.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| *step >= rough);
    let step = step.unwrap_or(10.0 * power);
    (0..).map(|index| f64::from(index) * step).take_while(|value| *value <= max * 1.0001).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_follow_the_scale() {
        assert_eq!(Scale::Linear(4.0).percent(1.0), 25.0);
        assert_eq!(Scale::Linear(4.0).percent(9.0), 100.0);
        assert_eq!(Scale::Linear(0.0).percent(9.0), 0.0);
        assert_eq!(Scale::Log(7, 11).percent(1e9), 50.0);
        assert_eq!(Scale::Log(7, 11).percent(0.0), 0.0);
    }

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(round_ticks(1.0), [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]);
        for max in [0.003, 0.7, 1.9, 12.0, 480.0] {
            assert!((3..=6).contains(&round_ticks(max).len()), "{max}: {:?}", round_ticks(max));
        }
        assert_eq!(round_ticks(0.0), [0.0]);
        assert_eq!(round_ticks(f64::NAN), [0.0]);
    }
}
