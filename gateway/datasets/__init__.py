"""An owner's tables: schemas, checked snapshots, and the frames that jobs compute on."""
