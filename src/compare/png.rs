//! SVG to PNG. The text is set in a font of the system: none is carried along.

use std::sync::Arc;

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{self, fontdb};

use crate::{Error, Result};

/// Pixels of the picture for one of the drawing.
const SCALE: f32 = 2.0;
/// Looked for in this order; else the first font there is.
const FAMILIES: [&str; 7] =
    ["DejaVu Sans", "Noto Sans", "Liberation Sans", "Segoe UI", "Helvetica Neue", "Helvetica", "Arial"];

pub struct Fonts {
    database: Arc<fontdb::Database>,
    family: String,
}

impl Fonts {
    /// # Errors
    /// An input error where the system has no font.
    pub fn of_the_system() -> Result<Self> {
        let mut database = fontdb::Database::new();
        database.load_system_fonts();
        let has = |family: &str| database.faces().any(|face| face.families.iter().any(|(name, _)| name == family));
        let known = FAMILIES.into_iter().find(|family| has(family)).map(String::from);
        let any = || database.faces().find_map(|face| face.families.first().map(|(name, _)| name.clone()));
        let Some(family) = known.or_else(any) else {
            let error = Error::input("the system has no font to write text with").key("--png");
            return Err(error.hint("install one, such as fonts-dejavu-core, or write `--svg`").into());
        };
        database.set_sans_serif_family(&family);
        Ok(Self { database: Arc::new(database), family })
    }
}

/// On light paper, two pixels for each of the drawing.
pub fn rasterise(svg: &str, fonts: &Fonts) -> Result<Vec<u8>> {
    let failed = |what: &dyn std::fmt::Display| Error::Failed(format!("a plot cannot be drawn as PNG: {what}"));
    let options =
        usvg::Options { fontdb: fonts.database.clone(), font_family: fonts.family.clone(), ..Default::default() };
    let tree = usvg::Tree::from_str(svg, &options).map_err(|error| failed(&error))?;
    let size = tree.size().to_int_size().scale_by(SCALE).ok_or_else(|| failed(&"it has no size"))?;
    let mut pixmap = Pixmap::new(size.width(), size.height()).ok_or_else(|| failed(&"it is too large"))?;
    resvg::render(&tree, Transform::from_scale(SCALE, SCALE), &mut pixmap.as_mut());
    pixmap.encode_png().map_err(|error| failed(&error))
}
