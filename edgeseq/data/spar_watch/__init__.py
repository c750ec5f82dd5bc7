"""Package data: the spar_watch recordings and their licence. A package, so that every build tool ships the folder."""
