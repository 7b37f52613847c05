//! The grid as a picture: caught repeats against capacity, a line for each TTL.

use super::report::{ratio, trimmed};
use super::study::Study;
use crate::tools::chart::{self, Area, FONT, INK};
use crate::tools::text::Span;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::error::Error;

const SIZE: (u32, u32) = (960, 560);
/// To the right of it stands the legend.
const CHART_WIDTH: u32 = 780;
const TARGET: RGBColor = RGBColor(0xc0, 0x39, 0x2b);

/// The picture as SVG text.
pub(super) fn svg(study: &Study, repeats: u64, subtitle: &str) -> Result<String, Box<dyn Error>> {
    chart::svg(SIZE, |root| draw(root, study, repeats, subtitle))
}

fn draw(root: &Area<'_>, study: &Study, repeats: u64, subtitle: &str) -> Result<(), Box<dyn Error>> {
    let title = (FONT, 21).into_font().color(&INK);
    let small = (FONT, 13).into_font().color(&INK);
    root.draw_text("Repeats caught, by capacity and TTL", &title, (24, 16))?;
    root.draw_text(subtitle, &small, (24, 44))?;
    let (chart, legend) = root.margin(64, 8, 8, 8).split_horizontally(CHART_WIDTH);
    draw_chart(&chart, study, repeats)?;
    draw_legend(&legend, study)
}

fn draw_chart(area: &Area<'_>, study: &Study, repeats: u64) -> Result<(), Box<dyn Error>> {
    #[expect(clippy::cast_precision_loss, reason = "for the eye")]
    let x = |capacity: usize| capacity as f64;
    let ends = study.grid.capacities.first().zip(study.grid.capacities.last());
    let (least, most) = ends.map_or((1.0, 10.0), |(least, most)| (x(*least), x(*most)));
    // One capacity alone would have no width.
    let (least, most) = if least == most { (least / 2.0, most * 2.0) } else { (least, most) };
    let mut chart = ChartBuilder::on(area)
        .set_label_area_size(LabelAreaPosition::Left, 64)
        .set_label_area_size(LabelAreaPosition::Bottom, 52)
        .margin_right(16)
        .build_cartesian_2d((least..most).log_scale(), 0.0..100.0)?;
    let names = ("capacity (ids, logarithmic)", "caught (% of all repeats)");
    chart::draw_axes(&mut chart, names, &|percent| format!("{percent:.0} %"))?;
    let target = study.terms.target * 100.0;
    chart.draw_series(DashedLineSeries::new(
        [(least, target), (most, target)],
        6,
        4,
        TARGET.stroke_width(1),
    ))?;
    for (index, ttl) in study.grid.ttls.iter().enumerate() {
        let color = color(index, study.grid.ttls.len());
        let points = study.of_ttl(*ttl).map(|cell| {
            (x(cell.capacity), if repeats == 0 { 0.0 } else { ratio(cell.outcome.caught, repeats) * 100.0 })
        });
        let points: Vec<(f64, f64)> = points.collect();
        chart.draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)))?;
        chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, color.filled())))?;
    }
    Ok(())
}

/// Draws the legend, the longest TTL first: the same order as the lines have.
fn draw_legend(area: &Area<'_>, study: &Study) -> Result<(), Box<dyn Error>> {
    let text = (FONT, 13).into_font().color(&INK).pos(Pos::new(HPos::Left, VPos::Center));
    let mut y = 14;
    area.draw_text("TTL", &text, (4, y))?;
    for (index, ttl) in study.grid.ttls.iter().enumerate().rev() {
        y += 24;
        let color = color(index, study.grid.ttls.len());
        area.draw(&PathElement::new([(4, y), (26, y)], color.stroke_width(2)))?;
        area.draw(&Circle::new((15, y), 3, color.filled()))?;
        area.draw_text(&Span(*ttl).to_string(), &text, (34, y))?;
    }
    y += 36;
    area.draw(&PathElement::new([(4, y), (10, y)], TARGET.stroke_width(1)))?;
    area.draw(&PathElement::new([(14, y), (20, y)], TARGET.stroke_width(1)))?;
    area.draw_text(&format!("target {} %", trimmed(study.terms.target * 100.0)), &text, (34, y))?;
    Ok(())
}

/// Returns a colour between dark violet (short TTL) and green (long). The yellow end of the scale is too light on white.
fn color(index: usize, of: usize) -> RGBColor {
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let place = index as f64 / of.saturating_sub(1).max(1) as f64;
    ViridisRGB.get_color(place * 0.85)
}
