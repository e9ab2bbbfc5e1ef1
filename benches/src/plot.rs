//! Bars: ours by theirs for every row, the peer at 1. Needs no fonts of the system.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

use anyhow::{Context, anyhow};
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};

use crate::report::Row;

const WIDTH: u32 = 900;
const BAR_HEIGHT: u32 = 44;
const MARGIN_HEIGHT: u32 = 90;
const FONT: &str = "sans-serif";
/// Ratios beyond are cut off: the number beside the bar says what they are.
const RATIO_MAX: f64 = 3.0;

/// Draws the rows' ratios as a PNG file.
pub fn ratios(rows: &[Row], title: &str, path: &Path) -> anyhow::Result<()> {
    register_font(FONT, FontStyle::Normal, epaint_default_fonts::HACK_REGULAR)
        .map_err(|_| anyhow!("the built-in font is not a font"))?;
    let height = MARGIN_HEIGHT + BAR_HEIGHT * u32::try_from(rows.len())?;
    let mut pixels = vec![0; WIDTH as usize * height as usize * 3];
    draw(rows, title, BitMapBackend::with_buffer(&mut pixels, (WIDTH, height)))
        .map_err(|error| anyhow!("cannot draw {title}: {error}"))?;
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut encoder = png::Encoder::new(BufWriter::new(file), WIDTH, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder
        .write_header()?
        .write_image_data(&pixels)
        .with_context(|| format!("cannot write {}", path.display()))
}

fn draw(rows: &[Row], title: &str, backend: BitMapBackend) -> Result<(), Box<dyn std::error::Error>> {
    let area = backend.into_drawing_area();
    area.fill(&WHITE)?;
    let most = rows.iter().map(|row| row.ratio).fold(1.2, f64::max).min(RATIO_MAX) * 1.15;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, (FONT, 20))
        .margin(10)
        .x_label_area_size(30)
        .build_cartesian_2d(-1.6 * most..most, 0.0..rows.len() as f64)?;
    for (row, place) in rows.iter().zip((0..rows.len()).rev()) {
        let (bottom, top) = (place as f64 + 0.2, place as f64 + 0.8);
        let end = row.ratio.min(most);
        chart.draw_series([Rectangle::new([(0.0, bottom), (end, top)], BLUE.mix(0.6).filled())])?;
        let better = if row.less_is_better() { "less" } else { "more" };
        let label = format!("{} / {} ({better} is better)", row.name, row.peer);
        let number = format!("{:.2}", row.ratio);
        let middle = place as f64 + 0.6;
        chart.draw_series([
            Text::new(label, (-1.58 * most, middle), (FONT, 16).into_font()),
            Text::new(number, (0.03 * most, middle), (FONT, 16).into_font()),
        ])?;
    }
    let peer = [(1.0, 0.0), (1.0, rows.len() as f64)];
    chart.draw_series([PathElement::new(peer, RED.stroke_width(2))])?;
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_needs_no_fonts_of_the_system() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("ratios.png");
        let rows = [
            Row::new("boot", "s", &[1.0], "bare KVM", &[2.0]),
            Row::new("memory", "MiB", &[5.0], "QEMU", &[1.0]),
        ];
        ratios(&rows, "ours by theirs", &path).expect("it draws");
        assert!(std::fs::read(&path).expect("it is there").starts_with(b"\x89PNG"));
    }
}
