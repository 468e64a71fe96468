"""What draws the pictures of these pages: `python -m docs.draw`. No part of the product."""
