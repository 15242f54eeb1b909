"""Raw data that a server keeps of the scans that it gets, each in a folder of its own with its configuration.

`scan` is one of them, `store` the folder of all with its limits; `recorder` writes a scan as it comes, and `conversion`
makes an ISMRMRD file of it afterwards; `again` reads it to be sent again.
"""
