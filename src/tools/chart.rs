//! The look that the pictures of all tools have in common: SVG, with a logarithmic axis from left to right.
//!
//! SVG only. A PNG would need a font at hand to draw its text with; an SVG leaves that to the program that shows it.

use crate::tools::text::exact_count;
use plotters::chart::ChartContext;
use plotters::coord::Shift;
use plotters::coord::combinators::LogCoord;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use std::error::Error;

/// The font of all text.
pub(super) const FONT: &str = "sans-serif";
/// The colour of text and axes.
pub(super) const INK: RGBColor = RGBColor(0x33, 0x33, 0x33);
/// The colour of the lines behind a chart.
pub(super) const GRID: RGBColor = RGBColor(0xe4, 0xe4, 0xe4);

/// A picture, or a part of it.
pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// A chart over a number that may be small or very large.
pub(super) type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<LogCoord<f64>, RangedCoordf64>>;

/// Returns the picture that `draw` draws, as SVG text.
pub(super) fn svg(
    size: (u32, u32),
    draw: impl FnOnce(&Area<'_>) -> Result<(), Box<dyn Error>>,
) -> Result<String, Box<dyn Error>> {
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, size).into_drawing_area();
        root.fill(&WHITE)?;
        draw(&root)?;
        root.present()?;
    }
    Ok(text)
}

/// Draws the axes, with these names, and the lines behind the chart. `label` makes the text of a height.
pub(super) fn draw_axes(
    chart: &mut Chart<'_, '_>,
    (across, up): (&str, &str),
    label: &dyn Fn(&f64) -> String,
) -> Result<(), Box<dyn Error>> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a cast from f64 saturates, and what is counted is whole"
    )]
    let count = |number: &f64| exact_count(number.round() as usize);
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(GRID)
        .axis_style(INK)
        .x_desc(across)
        .y_desc(up)
        .x_label_formatter(&count)
        .y_label_formatter(&label)
        .label_style((FONT, 13).into_font().color(&INK))
        .axis_desc_style((FONT, 14).into_font().color(&INK))
        .draw()?;
    Ok(())
}
