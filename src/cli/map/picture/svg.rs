//! The picture as SVG: one file that needs nothing else.

use std::fmt::Write;

use snapcow::markup::escape;

use super::{Anchor, Colour, Drawing, FRAME, GROUND, Shape, png};

impl Drawing {
    /// The file.
    pub fn svg(&self) -> String {
        let (width, height) = (self.width, self.height);
        let mut text = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" role=\"img\" xml:space=\"preserve\" font-size=\"14\" \
             font-family=\"'Noto Sans Mono', 'DejaVu Sans Mono', ui-monospace, monospace\">\n\
             <title>{}</title>\n\
             <rect x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"6\" fill=\"{}\" stroke=\"{}\" />\n",
            escape(&self.title),
            width - 1,
            height - 1,
            hex(GROUND),
            hex(FRAME)
        );
        let mut colour = None;
        for shape in &self.shapes {
            match shape {
                Shape::Rect { x, y, width, height, colour: own } => {
                    // Squares of one colour follow each other: they are one path.
                    if colour != Some(*own) {
                        text.push_str(if colour.is_some() { "\" />\n" } else { "" });
                        let _ = write!(text, "<path fill=\"{}\" d=\"", hex(*own));
                        colour = Some(*own);
                    }
                    let _ = write!(text, "M{x} {y}h{width}v{height}h-{width}z");
                }
                Shape::Text { .. } => {
                    if colour.take().is_some() {
                        text.push_str("\" />\n");
                    }
                    words(&mut text, shape);
                }
            }
        }
        if colour.is_some() {
            text.push_str("\" />\n");
        }
        text.push_str("</svg>\n");
        text
    }
}

fn words(out: &mut String, shape: &Shape) {
    let Shape::Text { x, y, size, bold, anchor, colour, text } = shape else { return };
    let height = size.height();
    // Any font is as wide as that of the other format, so that nothing runs into anything.
    let width = text.chars().count() as u32 * png::char_width(*size);
    let _ = writeln!(
        out,
        "<text x=\"{x}\" y=\"{}\" fill=\"{}\"{}{}{} textLength=\"{width}\" lengthAdjust=\"spacingAndGlyphs\">{}</text>",
        y + height * 13 / 16,
        hex(*colour),
        if *anchor == Anchor::End { " text-anchor=\"end\"" } else { "" },
        if *bold { " font-weight=\"bold\"" } else { "" },
        if height == 16 { String::new() } else { format!(" font-size=\"{}\"", height * 7 / 8) },
        escape(text)
    );
}

fn hex([red, green, blue]: Colour) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}
