package auth

import "github.com/wafermail/wafer/core/mail"

// Domains are the users of several mail domains: domain to File. One File may
// stand under several domains. A value is not changed once it is in use.
type Domains struct {
	files map[string]*File
	// Default is the domain of a user who logs in without one; "" means that
	// such a user does not exist.
	Default string
}

// NewDomains returns the users of files, whose keys are domains in any case,
// also with U-labels.
func NewDomains(files map[string]*File) *Domains {
	d := &Domains{files: make(map[string]*File, len(files))}
	for name, f := range files {
		d.files[mail.DomainKey(name)] = f
	}
	return d
}

// File returns the users file of domain, or nil.
func (d *Domains) File(domain string) *File { return d.files[mail.DomainKey(domain)] }

// Lookup implements Users for "local@domain", in any case. Subaddresses are not
// cut off: who logs in is named exactly. Error: ErrNoUser.
func (d *Domains) Lookup(user string) (Record, error) {
	f, user := d.find(user)
	if f == nil {
		return Record{}, ErrNoUser
	}
	return f.Lookup(user)
}

// Has reports whether "local@domain" exists.
func (d *Domains) Has(user string) bool {
	f, user := d.find(user)
	return f != nil && f.Has(user)
}

// Decoy implements Decoyer. For a domain that is not ours any file's most
// common hash would do; it takes the same one every time, so that the time of a
// login does not tell our domains from others more than it must.
func (d *Domains) Decoy(user string) string {
	if f, user := d.find(user); f != nil {
		return f.Decoy(user)
	}
	if f := d.File(d.Default); f != nil {
		return f.Decoy(user)
	}
	return newDecoy()
}

// DecoyKeys implements KeyDecoyer.
func (d *Domains) DecoyKeys(user string) (name string, rounds, salt int) {
	if f, user := d.find(user); f != nil {
		return f.DecoyKeys(user)
	}
	if f := d.File(d.Default); f != nil {
		_, rounds, salt = f.DecoyKeys(user)
		return canonicalName(user), rounds, salt
	}
	return canonicalName(user), newSCRAMRounds, newSCRAMSalt
}

// HasKeys implements KeyDecoyer.
func (d *Domains) HasKeys() bool {
	for _, f := range d.files {
		if f.HasKeys() {
			return true
		}
	}
	return false
}

func (d *Domains) find(user string) (*File, string) {
	_, domain, ok := cutLast(user)
	if !ok {
		if d.Default == "" {
			return nil, user
		}
		domain = d.Default
		user += "@" + domain
	}
	if len(domain) > mail.MaxDomain {
		return nil, user
	}
	return d.files[mail.DomainKey(domain)], user
}
