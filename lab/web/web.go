// Package web has what each page on this machine answers with: to whom it answers, and what a
// browser may load for it.
//
// It refuses to know what a page shows.
package web

import (
	"fmt"
	"net/http"
)

// contentPolicy lets a page load from its own program and nowhere else.
const contentPolicy = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Secure answers as next does, tells the browser to load nothing from elsewhere,
// and refuses a request that names another host than this machine, an address or
// one of names: a page of a stranger can have its own name lead here (DNS
// rebinding), and would read what the browser may see. A browser that was given
// an address has asked for that address.
func Secure(next http.Handler, names Names) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", contentPolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-cache")
		if !names.has(r.Host) {
			http.Error(w, fmt.Sprintf("this page does not answer to the host %q: open it as localhost, by an address%s", r.Host, names.or()), http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}
