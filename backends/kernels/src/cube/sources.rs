pub fn sources() {}
