//! The picture as PNG: eight bits a channel, compressed by the library that compresses clusters, texts in a font
//! of ready-made letters.
//!
//! The format is the W3C's «Portable Network Graphics Specification»: a signature, then chunks with a CRC-32 each.

use libdeflater::{CompressionLvl, Compressor};
use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};

use super::{Anchor, Colour, Drawing, FRAME, GROUND, Shape, Size};

const SIGNATURE: [u8; 8] = *b"\x89PNG\r\n\x1a\n";

impl Drawing {
    /// The file.
    pub fn png(&self) -> Vec<u8> {
        let mut canvas = Canvas::new(self.width, self.height);
        canvas.rect(0, 0, self.width, self.height, FRAME);
        canvas.rect(1, 1, self.width - 2, self.height - 2, GROUND);
        for shape in &self.shapes {
            match shape {
                Shape::Rect { x, y, width, height, colour } => canvas.rect(*x, *y, *width, *height, *colour),
                Shape::Text { x, y, size, bold, anchor, colour, text } => {
                    let wide = text.chars().count() as u32 * char_width(*size);
                    let x = if *anchor == Anchor::End { x.saturating_sub(wide) } else { *x };
                    canvas.text(x, *y, *size, *bold, *colour, text);
                }
            }
        }
        canvas.encode()
    }
}

/// Width of a letter in pixels.
pub fn char_width(size: Size) -> u32 {
    get_raster_width(FontWeight::Regular, raster(size)) as u32
}

fn raster(size: Size) -> RasterHeight {
    match size {
        Size::Small => RasterHeight::Size16,
        Size::Large => RasterHeight::Size24,
    }
}

struct Canvas {
    width: u32,
    height: u32,
    /// Rows, each with the byte before it that says how it is filtered: not at all.
    bytes: Vec<u8>,
}

impl Canvas {
    fn new(width: u32, height: u32) -> Self {
        Self { width, height, bytes: vec![0; (height * (width * 3 + 1)) as usize] }
    }

    fn pixel(&mut self, x: u32, y: u32) -> Option<&mut [u8]> {
        let at = (y * (self.width * 3 + 1) + 1 + x * 3) as usize;
        if x < self.width && y < self.height { self.bytes.get_mut(at..at + 3) } else { None }
    }

    fn rect(&mut self, x: u32, y: u32, width: u32, height: u32, colour: Colour) {
        for (y, x) in (y..y + height).flat_map(|y| (x..x + width).map(move |x| (y, x))) {
            if let Some(pixel) = self.pixel(x, y) {
                pixel.copy_from_slice(&colour);
            }
        }
    }

    fn text(&mut self, mut x: u32, y: u32, size: Size, bold: bool, colour: Colour, text: &str) {
        let weight = if bold { FontWeight::Bold } else { FontWeight::Regular };
        for c in text.chars() {
            // The font has no more than the letters of ASCII.
            let Some(letter) =
                get_raster(c, weight, raster(size)).or_else(|| get_raster('?', weight, raster(size)))
            else {
                continue;
            };
            for (dy, row) in (0..).zip(letter.rows()) {
                for (dx, cover) in (0..).zip(row) {
                    let Some(pixel) = self.pixel(x + dx, y + dy) else { continue };
                    for (own, new) in pixel.iter_mut().zip(colour) {
                        let (cover, under) = (u32::from(*cover), u32::from(*own));
                        *own = ((under * (255 - cover) + u32::from(new) * cover) / 255) as u8;
                    }
                }
            }
            x += letter.width() as u32;
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut head = [self.width.to_be_bytes(), self.height.to_be_bytes()].concat();
        // Eight bits, red, green and blue, and the only compression, filter method and order without surprises.
        head.extend([8, 2, 0, 0, 0]);
        let mut compressor = Compressor::new(CompressionLvl::default());
        let mut packed = vec![0; compressor.zlib_compress_bound(self.bytes.len())];
        // The bound is what it may take at most, so this cannot fail.
        let len = compressor.zlib_compress(&self.bytes, &mut packed).unwrap_or(0);
        let mut file = SIGNATURE.to_vec();
        chunk(&mut file, b"IHDR", &head);
        chunk(&mut file, b"IDAT", &packed[..len]);
        chunk(&mut file, b"IEND", &[]);
        file
    }
}

fn chunk(file: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
    file.extend((data.len() as u32).to_be_bytes());
    let begin = file.len();
    file.extend(kind);
    file.extend(data);
    let crc = crc32fast::hash(&file[begin..]);
    file.extend(crc.to_be_bytes());
}
