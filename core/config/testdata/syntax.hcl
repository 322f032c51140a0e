hostname = "x
