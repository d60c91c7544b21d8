package request

import (
	"context"
	"time"
)

// Ref names an object that a token is bound to.
type Ref struct {
	Name string `json:"name"`
	UID  string `json:"uid"`
}

// TokenClaims say for whom and for what a service account token is made.
type TokenClaims struct {
	Namespace         string
	Account           Ref
	Pod, Secret, Node *Ref
	Audiences         []string
	Life              time.Duration
	// WarnAfter, when set, is when use of the token counts as stale.
	WarnAfter time.Duration
}

// TokenIssuer makes service account tokens.
type TokenIssuer interface {
	Issue(c TokenClaims) (token string, expires time.Time, id string, err error)
	// Audiences are those of the API server itself.
	Audiences() []string
}

// TokenReviewer says whom a token belongs to; audiences nil means the server's own.
type TokenReviewer interface {
	Review(ctx context.Context, token string, audiences []string) (u *User, matched []string, ok bool, err error)
}
