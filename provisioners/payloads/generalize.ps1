# Runs the deprovision script of the image. Off Azure the agents that the service's default script waits for may not be
# installed, and it would wait for ever: for exactly those names, which are filled in here, Get-Service answers that
# they run. A function comes before a cmdlet of the same name, and the script is run in this scope. `exit N` of a script
# that another one runs ends only itself: its code, or that of its last program, is passed on, as Packer does.
$aibAbsentServices = @(@ABSENT@)
function Get-Service([string[]] $Name) {
    if ($Name.Count -eq 1 -and $aibAbsentServices -contains $Name[0]) {
        return New-Object PSObject -Property @{ Name = $Name[0]; Status = 'Running' }
    }
    Microsoft.PowerShell.Management\Get-Service @PSBoundParameters @args
}
$global:LASTEXITCODE = 0
if (Test-Path @SCRIPT@) { . @SCRIPT@ }
exit $LASTEXITCODE
