"""The page: paint a hole on a photo in the browser and have it filled."""
