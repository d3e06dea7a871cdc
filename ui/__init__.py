"""The page: draw a hole on a photo in the browser, see it filled."""
