//! The curves as a picture, side by side.

use super::Curve;
use crate::tools::chart::{self, Area, FONT, GRID, INK};
use plotters::prelude::*;
use std::error::Error;

const SIZE: (u32, u32) = (1060, 440);
const OURS: RGBColor = RGBColor(0x1f, 0x5f, 0xbf);
const THEIRS: RGBColor = RGBColor(0x8a, 0x8a, 0x8a);

/// The picture as SVG text.
pub(super) fn svg(curves: &[Curve; 2], about: &[String]) -> Result<String, Box<dyn Error>> {
    chart::svg(SIZE, |root| {
        let small = (FONT, 13).into_font().color(&INK);
        root.draw_text(&about.join("; "), &small, (24, 12))?;
        let (left, right) = root.margin(36, 8, 8, 8).split_horizontally(SIZE.0 / 2);
        draw(&left, &curves[0])?;
        draw(&right, &curves[1])
    })
}

fn draw(area: &Area<'_>, curve: &Curve) -> Result<(), Box<dyn Error>> {
    let sizes = || curve.points.iter().map(|point| point.size as f64);
    let least = sizes().fold(f64::INFINITY, f64::min).max(1.0);
    let most = sizes().fold(least * 2.0, f64::max);
    let high = curve.points.iter().map(|point| point.cpu.ours()).fold(0.1, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption(curve.what, (FONT, 17).into_font().color(&INK))
        .set_label_area_size(LabelAreaPosition::Left, 56)
        .set_label_area_size(LabelAreaPosition::Bottom, 48)
        .margin_right(24)
        .build_cartesian_2d((least..most).log_scale(), 0.0..high * 1.15)?;
    let names = (&*format!("{} (logarithmic)", curve.size), "µs per message");
    chart::draw_axes(&mut chart, names, &|micros| format!("{micros:.1}"))?;
    let compared = curve.points.iter().filter(|point| point.is_compared);
    let theirs: Vec<(f64, f64)> = compared.map(|point| (point.size as f64, point.cpu.theirs())).collect();
    let ours: Vec<(f64, f64)> =
        curve.points.iter().map(|point| (point.size as f64, point.cpu.ours())).collect();
    for (name, color, points) in [("Hapax", OURS, ours), ("haproxy", THEIRS, theirs)] {
        chart
            .draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
        chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, color.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE)
        .border_style(GRID)
        .label_font((FONT, 13).into_font().color(&INK))
        .draw()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::super::table::Pairs;
    use super::super::Point;
    use super::*;

    fn curve(size: &'static str, sizes: &[u64]) -> Curve {
        let point = |size: &u64| {
            let mut cpu = Pairs::default();
            cpu.push(1.0, 0.25);
            Point { size: *size, cpu, is_compared: *size < 10_000, rate: 1e6 }
        };
        Curve { what: "CPU", size, points: sizes.iter().map(point).collect() }
    }

    #[test]
    fn both_curves_are_drawn_with_their_axes_and_names() {
        let curves = [curve("ids", &[10_000, 50_000_000]), curve("connections", &[1, 10_000])];
        let svg = svg(&curves, &["2 cores".to_owned()]).unwrap();
        for word in [
            "ids (logarithmic)",
            "connections (logarithmic)",
            "haproxy",
            "Hapax",
            "2 cores",
            "µs per message",
        ] {
            assert!(svg.contains(word), "{word}");
        }
    }
}
