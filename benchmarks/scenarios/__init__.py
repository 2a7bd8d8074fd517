"""One module for each question that is asked of the proxies; `catalogue` lists them."""
