"""What each route does: from a request to a reply, through the service. One file per noun."""
