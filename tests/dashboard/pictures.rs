//! The pictures in `docs/images`. Written only where `HAPAX_SHOTS` names a folder; without it the same page is drawn and
//! looked at for its size alone.
