"""Networks, their weights files, and the devices they compute on."""
