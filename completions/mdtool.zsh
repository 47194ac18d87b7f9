#compdef mdtool

_mdtool_completion() {
  eval $(env _TYPER_COMPLETE_ARGS="${words[1,$CURRENT]}" _MDTOOL_COMPLETE=complete_zsh mdtool)
}

compdef _mdtool_completion mdtool
